"""The end of the pause closes the breaker: everybody probes, until five have failed again.

Refused: not yet  the pause is over: 1 of 10
"""


class OneProbe:
    def __init__(self, now=monotonic):
        self.now, self.failures, self.until = now, 0, 0.0

    def allows(self):
        if self.failures >= 5 and self.now() >= self.until:
            self.failures = 0
        return self.failures < 5

    def report(self, worked):
        self.failures = 0 if worked else self.failures + 1
        self.until = self.now() + 0.5
