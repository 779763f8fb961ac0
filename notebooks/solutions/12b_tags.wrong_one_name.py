"""Both keys have one name: the cart is written over the profile.

Refused: 2000 keys, 1000 different names
"""


def keys_of(user):
    return f"{{{user}}}", f"{{{user}}}"
