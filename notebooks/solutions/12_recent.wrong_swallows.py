"""The caller hears nothing of a Redis that is away, and takes the old value for gone.

Refused: the cache was told of ada, the caller saw no InvalidationPending
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.noted[id] = self.now()
        try:
            self.cache.invalidate(id)
        except InvalidationPending:
            pass

    def switched(self):
        since = self.now() - 10
        for id in [id for id, at in self.noted.items() if at >= since]:
            self.cache.invalidate(id)
