"""Python's ConnectionError, which is not Redis's: nothing is caught.

Refused: not yet  with Redis gone: the database's value
"""


class MyCache:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl = connect(url, check=False), load, ttl

    def get(self, id):
        value = None
        try:
            value = self.client.get(id)
        except ConnectionError:
            pass
        if value is None and (value := self.load(id)) is not None:
            try:
                self.client.set(id, value, ex=int(self.ttl))
            except ConnectionError:
                pass
        return value
