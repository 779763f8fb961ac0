"""HINCRBY alone leaves a line of 0, or less.

Refused: not yet  a line of which nothing is left is gone (the line then is 0)
"""


def take_out(client, key, item, quantity):
    client.hincrby(key, item, -quantity)
