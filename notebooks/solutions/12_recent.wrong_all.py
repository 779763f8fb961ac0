"""Nothing is ever forgotten: a switch after a month sends a month of invalidations.

Refused: not yet  what was invalidated long ago is not
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.noted = cache, set()

    def invalidate(self, id):
        self.noted.add(id)
        self.cache.invalidate(id)

    def switched(self):
        for id in self.noted:
            self.cache.invalidate(id)
