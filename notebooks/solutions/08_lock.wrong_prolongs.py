"""Both commands in one MULTI: whoever tries in vain gives the lock of another a new life.

Refused: is free in a second (whoever tries to take it makes it live longer)
"""


def take(client, name):
    token = uuid4().hex
    with client.pipeline() as both:
        both.set(name, token, nx=True)
        both.pexpire(name, 1000)
        taken, _ = both.execute()
    return token if taken else None


def give_back(client, name, token):
    client.eval(RELEASE, 1, name, token)
