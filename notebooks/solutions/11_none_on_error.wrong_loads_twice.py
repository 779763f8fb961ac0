"""Redis's errors alone, but around the load as well: a store that fails loads once more.

Refused: not yet  with Redis full: the database's value, loaded once
"""


class MyCache:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl = connect(url, check=False), load, ttl

    def get(self, id):
        try:
            value = self.client.get(id)
            if value is None and (value := self.load(id)) is not None:
                self.client.set(id, value, ex=int(self.ttl))
            return value
        except redis.RedisError:
            return self.load(id)
