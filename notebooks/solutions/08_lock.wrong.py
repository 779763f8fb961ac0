"""A plain DEL releases whatever lock is there, though it be the next holder's.

Refused: not yet a late release leaves the next holder's lock
"""


def take(client, name):
    token = uuid4().hex
    return token if client.set(name, token, nx=True, px=1000) else None


def give_back(client, name, token):
    client.delete(name)
