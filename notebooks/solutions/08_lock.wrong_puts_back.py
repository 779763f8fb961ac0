"""GETDEL, and what is not ours is put back: between the two the lock is free.

Refused: not yet a late release leaves the next holder's lock
"""


def take(client, name):
    token = uuid4().hex
    return token if client.set(name, token, nx=True, px=1000) else None


def give_back(client, name, token):
    held = client.getdel(name)
    if held not in (None, token):
        client.set(name, held, px=1000)
