"""One time for all ids: the last invalidation makes all of them recent.

Refused: not yet  what was invalidated long ago is not
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.ids, self.last = cache, now, set(), 0

    def invalidate(self, id):
        self.ids.add(id)
        self.last = self.now()
        self.cache.invalidate(id)

    def switched(self):
        if self.now() - self.last <= 10:
            for id in self.ids:
                self.cache.invalidate(id)
