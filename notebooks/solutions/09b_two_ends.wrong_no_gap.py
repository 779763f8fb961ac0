"""The refresh begins with the next read, not with the soft end itself.

Refused: not yet  while all is well no answer is too old
"""


def two_ends(fresh, oldest, load, gap):
    ttl = fresh - load
    return ttl, oldest - ttl
