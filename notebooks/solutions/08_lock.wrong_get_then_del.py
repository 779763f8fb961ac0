"""GET, then DEL: between the two the lock may run out and be somebody else's.

Refused: not yet a lock that changes hands during give_back stays
"""


def take(client, name):
    token = uuid4().hex
    return token if client.set(name, token, nx=True, px=1000) else None


def give_back(client, name, token):
    if client.get(name) == token:
        client.delete(name)
