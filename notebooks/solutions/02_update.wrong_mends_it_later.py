"""It drops the expiry and puts it back: in between, and if the program ends there, it has none.

Refused: not yet  through fifty updates it expires at the same moment
"""


def update(name, value):
    moment = client.pexpiretime(name)
    if client.set(name, value, xx=True) and moment > 0:
        client.pexpireat(name, moment)
