"""It gives the key a hundred seconds, whatever it had.

Refused: not yet  through fifty updates it expires at the same moment
"""


def update(name, value):
    client.set(name, value, xx=True, ex=100)
