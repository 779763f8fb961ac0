"""No grace beyond a load: when the database dies, readers wait soon.

Refused: not yet  though they are served as long as they may be
"""


def two_ends(fresh, oldest, load, gap):
    return fresh - load - gap, load + gap
