"""The line is read, and what was read decides: who came in between is written over.

Refused: not yet  twenty who take out one of twenty-five leave five (the line then is
"""


def take_out(client, key, item, quantity):
    left = int(client.hget(key, item) or 0) - quantity
    if left > 0:
        client.hset(key, item, left)
    else:
        client.hdel(key, item)
