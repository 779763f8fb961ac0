"""Only the first braces count: the second tag is none.

Refused: 1000 of 1000 users on one node
"""


def keys_of(user):
    return f"{{shop}}:profile:{{{user}}}", f"{{shop}}:cart:{{{user}}}"
