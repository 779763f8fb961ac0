"""The call that goes through moves the end of the pause: the next one finds the breaker open."""


class OneProbe:
    def __init__(self, now=monotonic):
        self.now, self.failures, self.until = now, 0, 0.0

    def allows(self):
        if self.failures < 5:
            return True
        if self.now() < self.until:
            return False
        self.until = self.now() + 0.5
        return True

    def report(self, worked):
        self.failures = 0 if worked else self.failures + 1
        self.until = self.now() + 0.5
