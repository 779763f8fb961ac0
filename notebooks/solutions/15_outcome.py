"""Both ends decide: within, beside, or across."""


def outcome(low, high, case):
    if low <= case.low and case.high <= high:
        return "for"
    if case.high < low or high < case.low:
        return "against"
    return "open"
