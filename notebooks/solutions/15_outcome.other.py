"""Each end of the interval is in what is claimed, below it, or above it; two alike decide."""


def outcome(low, high, case):
    def side(value):
        return -1 if value < low else int(value > high)

    sides = {side(case.low), side(case.high)}
    if len(sides) > 1:
        return "open"
    return "for" if sides == {0} else "against"
