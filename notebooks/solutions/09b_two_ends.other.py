"""The other way round: what may be served after the soft end is all but what comes before."""


def two_ends(fresh, oldest, load, gap):
    grace = oldest - fresh + load + gap
    return oldest - grace, grace
