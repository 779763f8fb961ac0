"""The value is stored without an expiry: what is stale once is stale for ever.

Refused: not yet  and what is stored expires (seconds to live:
"""

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
                self.client.set(id, value)
        return value
