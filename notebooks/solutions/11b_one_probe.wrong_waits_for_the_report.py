"""The flag is lowered by the report: a probe that dies without one closes the door for good.

Refused: not yet  the probe died and never reports
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
        self.probing = False
        self.failures = 0 if worked else self.failures + 1
        self.until = self.now() + 0.5
