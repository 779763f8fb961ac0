"""It asks for the expiry and sets it anew: in whole seconds, and -1 is none; others come between.

Refused: not yet  a key that never expires still never does
"""


def update(name, value):
    if client.exists(name):
        client.set(name, value, ex=client.ttl(name))
