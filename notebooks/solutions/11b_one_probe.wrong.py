"""A flag says that a probe is under way, and nothing ever lowers it: one probe, then no more.

Refused: not yet  the probe failed
"""


class OneProbe:
    def __init__(self, now=monotonic):
        self.now, self.failures, self.until = now, 0, 0.0
        self.probing = False

    def allows(self):
        if self.failures < 5:
            return True
        if self.now() < self.until or self.probing:
            return False
        self.probing = True
        return True

    def report(self, worked):
        self.failures = 0 if worked else self.failures + 1
        self.until = self.now() + 0.5
