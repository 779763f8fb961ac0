"""The braces are not closed, so they are no tag.

Refused: 1000 of 1000 users have keys in two slots
"""


def keys_of(user):
    return f"profile:{{{user}", f"cart:{{{user}"
