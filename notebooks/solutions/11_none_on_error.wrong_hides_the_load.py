"""The database's errors are hidden with Redis's: a user whose load failed does not exist.

Refused: not yet  a load that fails: its own error, loaded once
"""


class MyCache:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl = connect(url, check=False), load, ttl

    def get(self, id):
        value = None
        try:
            value = self.client.get(id)
        except redis.RedisError:
            pass
        try:
            if value is None and (value := self.load(id)) is not None:
                self.client.set(id, value, ex=int(self.ttl))
        except Exception:
            pass
        return value
