"""Change a value in place: only if the key exists (xx), and with the expiry it has (keepttl)."""


def update(name, value):
    client.set(name, value, xx=True, keepttl=True)
