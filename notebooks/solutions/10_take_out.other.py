"""EXEC does nothing if the cart has changed since it was watched, and then we look again."""

from redis import WatchError


def take_out(client, key, item, quantity):
    with client.pipeline() as pipe:
        while True:
            try:
                pipe.watch(key)
                left = int(pipe.hget(key, item) or 0) - quantity
                pipe.multi()
                if left > 0:
                    pipe.hset(key, item, left)
                else:
                    pipe.hdel(key, item)
                pipe.execute()
                return
            except WatchError:
                continue
