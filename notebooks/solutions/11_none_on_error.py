"""When Redis is away or full, the database has the value; what else fails reaches the caller."""

from contextlib import suppress


class MyCache:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl = connect(url, check=False), load, ttl

    def get(self, id):
        value = None
        with suppress(redis.RedisError):
            value = self.client.get(id)
        if value is None and (value := self.load(id)) is not None:
            with suppress(redis.RedisError):
                self.client.set(id, value, ex=int(self.ttl))
        return value
