"""Each time is noted; at the switch one that raises does not keep the others back."""

from contextlib import suppress


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.sent = cache, now, []

    def invalidate(self, id):
        try:
            self.cache.invalidate(id)
        except InvalidationPending:
            self.sent.append((id, self.now()))
            raise
        self.sent.append((id, self.now()))

    def switched(self):
        now = self.now()
        for id in [id for id, at in self.sent if now - at < 10]:
            with suppress(InvalidationPending):
                self.cache.invalidate(id)
