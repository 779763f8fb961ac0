"""Noted before it is sent, with the time of the last one."""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.noted = cache, now, {}

    def invalidate(self, id):
        self.noted[id] = self.now()
        self.cache.invalidate(id)

    def switched(self):
        since = self.now() - 10
        self.noted = {id: at for id, at in self.noted.items() if at >= since}
        for id in self.noted:
            self.cache.invalidate(id)
