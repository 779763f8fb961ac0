"""Two methods, one for each question, with a try of its own."""


class MyCache:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl = connect(url, check=False), load, ttl

    def get(self, id):
        value = self._cached(id)
        if value is None:
            value = self.load(id)
            if value is not None:
                self._store(id, value)
        return value

    def _cached(self, id):
        try:
            return self.client.get(id)
        except redis.RedisError:
            return None

    def _store(self, id, value):
        try:
            self.client.set(id, value, ex=int(self.ttl))
        except redis.RedisError:
            return
