"""Noted before it is sent, with the time of the last one."""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.noted[id] = self.now()
        self.cache.invalidate(id)

    def switched(self):
        since = self.now() - 10
        for id, at in list(self.noted.items()):  # other threads may invalidate meanwhile
            if at >= since:
                self.cache.invalidate(id)
