"""HINCRBY leaves no gap, but HDEL after it deletes what somebody has put in since.

Refused: not yet  who puts one in between your commands still has it (the line then is gone)
"""


def take_out(client, key, item, quantity):
    if client.hincrby(key, item, -quantity) <= 0:
        client.hdel(key, item)
