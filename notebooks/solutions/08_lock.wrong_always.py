"""The token is returned though the lock is somebody else's.

Refused: not yet the second gets None, until it is given back
"""


def take(client, name):
    token = uuid4().hex
    client.set(name, token, nx=True, px=1000)
    return token


def give_back(client, name, token):
    client.eval(RELEASE, 1, name, token)
