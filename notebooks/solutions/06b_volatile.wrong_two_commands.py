"""The time to live comes in a second command: who ends between the two leaves a key for ever.

Refused: for a moment it lives for ever
"""


def fill(client, key, value):
    client.set(key, value)
    client.expire(key, 300)
