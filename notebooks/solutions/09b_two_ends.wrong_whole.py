"""The grace is counted from the start, not from the soft end: answers are too old.

Refused: not yet  nor when the database dies
"""


def two_ends(fresh, oldest, load, gap):
    return fresh - load - gap, oldest
