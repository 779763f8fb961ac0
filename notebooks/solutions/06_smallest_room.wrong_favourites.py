"""It takes the promise of a cache that knows the favourites for LRU.

Refused: not yet  with so many keys LRU has the hit rate
"""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, skew)
    keys = 1
    while law[:keys].sum() < target:
        keys += 1
    return keys
