"""It looks whether the key is there and then sets it: between the two somebody may delete it.

Refused: not yet  deleted meanwhile, it stays deleted
"""


def update(name, value):
    if client.exists(name):
        client.set(name, value, keepttl=True)
