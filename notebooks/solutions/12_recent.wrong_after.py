"""What raises is not noted: the invalidations of the outage itself are forgotten.

Refused: not yet  what Redis was away for
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.cache.invalidate(id)
        self.noted[id] = self.now()

    def switched(self):
        since = self.now() - 10
        for id in [id for id, at in self.noted.items() if at >= since]:
            self.cache.invalidate(id)
