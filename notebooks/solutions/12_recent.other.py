"""A queue of what was sent, whose old end is forgotten as soon as something is added."""

from collections import deque


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.sent = cache, now, deque()

    def forget(self):
        while self.sent and self.sent[0][0] < self.now() - 10:
            self.sent.popleft()

    def invalidate(self, id):
        try:
            self.cache.invalidate(id)
        finally:
            self.sent.append((self.now(), id))
            self.forget()

    def switched(self):
        self.forget()
        for id in {id for _, id in self.sent}:
            self.cache.invalidate(id)
