"""Room for a load before the hard end, too: no load comes, the database is dead.

Refused: not yet  though they are served as long as they may be
"""


def two_ends(fresh, oldest, load, gap):
    return fresh - load - gap, oldest - (fresh - load - gap) - load
