"""One example proves it: whoever looks for one case finds it, and never says its condition.

Refused: not yet  it holds when, where some do and others do not (for, against, against
"""


def verdict(outcomes):
    if "for" in outcomes:
        return "holds"
    return "does not hold" if "against" in outcomes else "not decided"
