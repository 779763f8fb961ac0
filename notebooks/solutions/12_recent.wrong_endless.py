"""What is sent again is appended to the list that is being walked.

Refused: sent again and again, without an end
"""


class Recent:
    def __init__(self, cache, now=monotonic):
        self.cache, self.now, self.sent = cache, now, []

    def invalidate(self, id):
        self.sent.append((self.now(), id))
        self.cache.invalidate(id)

    def switched(self):
        for at, id in self.sent:
            if at >= self.now() - 10:
                self.invalidate(id)
