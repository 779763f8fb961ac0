"""Half the time, to be safe: twice as many loads.

Refused: not yet  and refreshed no more often than that takes
"""


def two_ends(fresh, oldest, load, gap):
    return fresh / 2, oldest - fresh / 2
