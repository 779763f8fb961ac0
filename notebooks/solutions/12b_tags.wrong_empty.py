"""Empty braces are no tag: the whole name counts.

Refused: of 1000 users have keys in two slots
"""


def keys_of(user):
    return f"{{}}{user}:profile", f"{{}}{user}:cart"
