"""EXEC does nothing if the cart has changed, and nobody tries again.

Refused: not yet  twenty who take out one of twenty-five leave five (the line then is
"""

from redis import WatchError


def take_out(client, key, item, quantity):
    with client.pipeline() as pipe:
        pipe.watch(key)
        left = int(pipe.hget(key, item) or 0) - quantity
        pipe.multi()
        if left > 0:
            pipe.hset(key, item, left)
        else:
            pipe.hdel(key, item)
        try:
            pipe.execute()
        except WatchError:
            pass
