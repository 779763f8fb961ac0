"""The time of the first invalidation is kept, so that a later one counts as old.

Refused: not yet  twice, long ago and lately
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.noted.setdefault(id, self.now())
        self.cache.invalidate(id)

    def switched(self):
        since = self.now() - 10
        for id in [id for id, at in self.noted.items() if at >= since]:
            self.cache.invalidate(id)
