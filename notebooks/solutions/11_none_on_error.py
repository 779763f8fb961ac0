"""When Redis is away, the database has the value; what else fails reaches the caller."""


class MyCache:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl = connect(url, check=False), load, ttl

    def get(self, id):
        try:
            value = self.client.get(id)
        except redis.RedisError:
            return self.load(id)
        if value is None and (value := self.load(id)) is not None:
            self.client.set(id, value, ex=int(self.ttl))
        return value
