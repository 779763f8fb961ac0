"""What is sent again is noted again, and what another thread notes meanwhile does no harm."""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.noted[id] = self.now()
        self.cache.invalidate(id)

    def switched(self):
        since = self.now() - 10
        for id in [id for id, at in list(self.noted.items()) if at >= since]:
            self.invalidate(id)
