"""The time of the last probe is kept apart from the end of the pause."""


class OneProbe:
    def __init__(self, now=monotonic):
        self.now, self.failures = now, 0
        self.asked = -1.0  # when somebody was last let through, or reported

    def allows(self):
        is_due = self.now() - self.asked >= 0.5
        if self.failures >= 5 and is_due:
            self.asked = self.now()
        return self.failures < 5 or is_due

    def report(self, worked):
        self.failures = 0 if worked else self.failures + 1
        self.asked = self.now()
