"""A lock that ends by itself, and that only its own token releases."""


def take(client, name):
    token = uuid4().hex
    return token if client.set(name, token, nx=True, px=1000) else None


def give_back(client, name, token):
    client.eval(RELEASE, 1, name, token)
