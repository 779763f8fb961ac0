"""The notes are thrown away at a switch: another one soon after it may lose them again.

Refused: at the second switch it sent nothing
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.noted[id] = self.now()
        self.cache.invalidate(id)

    def switched(self):
        since = self.now() - 10
        for id in [id for id, at in self.noted.items() if at >= since]:
            self.cache.invalidate(id)
        self.noted.clear()
