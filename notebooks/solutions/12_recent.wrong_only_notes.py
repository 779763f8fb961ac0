"""The id is noted for a switch, and stays in the cache until there is one.

Refused: the cache was told nothing
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.noted[id] = self.now()

    def switched(self):
        since = self.now() - 10
        for id in [id for id, at in self.noted.items() if at >= since]:
            self.cache.invalidate(id)
