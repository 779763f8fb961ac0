"""An answered probe takes one failure back: after probes that failed the breaker stays open.

Refused: not yet  the probe was answered: all 10 go through
"""


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
        self.failures += -1 if worked else 1
        self.until = self.now() + 0.5
