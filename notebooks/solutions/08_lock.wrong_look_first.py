"""A look, then SET without NX: two who look at the same moment both get the lock.

Refused: not yet nobody else gets in between two commands of take
"""


def take(client, name):
    if client.exists(name):
        return None
    token = uuid4().hex
    client.set(name, token, px=1000)
    return token


def give_back(client, name, token):
    client.eval(RELEASE, 1, name, token)
