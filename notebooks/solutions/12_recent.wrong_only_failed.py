"""Only what raised is noted: what the primary took and its copies did not is lost all the same.

Refused: at the first switch it sent nothing
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        try:
            self.cache.invalidate(id)
        except InvalidationPending:
            self.noted[id] = self.now()
            raise

    def switched(self):
        since = self.now() - 10
        for id in [id for id, at in self.noted.items() if at >= since]:
            self.cache.invalidate(id)
