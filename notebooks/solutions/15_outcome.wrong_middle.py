"""The middle decides: another run has another middle, and another verdict.

Refused: not yet  one that reaches over an end is open (10 to 20 is claimed, 11
"""


def outcome(low, high, case):
    return "for" if low <= case.value <= high else "against"
