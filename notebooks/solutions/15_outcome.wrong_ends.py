"""Both ends are outside, so it is against: but they are outside on two sides, with all between.

Refused: not yet  one that reaches over an end is open (10 to 20 is claimed, 15
"""


def outcome(low, high, case):
    inside = [low <= end <= high for end in (case.low, case.high)]
    if all(inside):
        return "for"
    return "open" if any(inside) else "against"
