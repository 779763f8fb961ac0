"""The refresh is due earlier, and the hard end comes earlier with it.

Refused: not yet  though they are served as long as they may be
"""


def two_ends(fresh, oldest, load, gap):
    return fresh - load - gap, oldest - fresh
