"""What is not shown to hold counts as refuted: data that say nothing become a verdict.

Refused: not yet  it is not decided where all are open (open
"""


def verdict(outcomes):
    if all(one == "for" for one in outcomes):
        return "holds"
    return "holds when" if "for" in outcomes else "does not hold"
