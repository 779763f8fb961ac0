"""The tag is the same for all: one node has every user.

Refused: 1000 of 1000 users on one node
"""


def keys_of(user):
    return f"{{user}}:{user}:profile", f"{{user}}:{user}:cart"
