"""SET NX, then PEXPIRE: who dies between the two leaves a lock for ever.

Refused: not yet so it is when the holder dies between two commands of take
"""


def take(client, name):
    token = uuid4().hex
    if not client.set(name, token, nx=True):
        return None
    client.pexpire(name, 1000)
    return token


def give_back(client, name, token):
    client.eval(RELEASE, 1, name, token)
