"""While the refresh runs the value grows older still.

Refused: not yet  while all is well no answer is too old
"""


def two_ends(fresh, oldest, load, gap):
    return fresh, oldest - fresh
