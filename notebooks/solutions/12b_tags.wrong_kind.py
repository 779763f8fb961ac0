"""The kind is the tag: all profiles in one slot, all carts in another.

Refused: 1000 of 1000 users have keys in two slots
"""


def keys_of(user):
    return f"{{profile}}:{user}", f"{{cart}}:{user}"
