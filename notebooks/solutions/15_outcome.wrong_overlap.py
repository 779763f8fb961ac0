"""An interval that only touches what is claimed counts for it: the wider, the more it confirms.

Refused: not yet  one that reaches over an end is open (10 to 20 is claimed, 11
"""


def outcome(low, high, case):
    return "for" if case.low <= high and low <= case.high else "against"
