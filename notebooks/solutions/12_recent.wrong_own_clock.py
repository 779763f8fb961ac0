"""The time is asked of another clock than the one that is given.

Refused: not yet  what was invalidated long ago is not
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.noted[id] = monotonic()
        self.cache.invalidate(id)

    def switched(self):
        since = monotonic() - 10
        for id in [id for id, at in self.noted.items() if at >= since]:
            self.cache.invalidate(id)
