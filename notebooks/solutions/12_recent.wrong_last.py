"""Only the last one is remembered: of many that a fail-over loses, one comes back.

Refused: at the first switch it sent b
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.last = cache, now, None

    def invalidate(self, id):
        self.last = self.now(), id
        self.cache.invalidate(id)

    def switched(self):
        if self.last and self.last[0] >= self.now() - 10:
            self.cache.invalidate(self.last[1])
