"""The user is the tag: one slot for each user, many users."""


def keys_of(user):
    return f"{{user-{user}}}:profile", f"{{user-{user}}}:cart"
