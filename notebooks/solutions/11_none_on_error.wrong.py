"""All errors around all five lines are taken for Redis's: a load that fails is made again.

Refused: not yet  a load that fails: its own error, loaded once
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
        except Exception:
            return self.load(id)
