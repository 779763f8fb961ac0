"""The braces stand around the whole name, so the two names have two tags.

Refused: of 1000 users have keys in two slots
"""


def keys_of(user):
    return f"{{profile:{user}}}", f"{{cart:{user}}}"
