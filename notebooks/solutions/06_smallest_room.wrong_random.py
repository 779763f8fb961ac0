"""It asks the line of random eviction, which wants more room.

Refused: not yet  with one key less it has not (skew
"""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, skew)
    keys = 1
    while workload.che_random(law, keys) < target:
        keys += 1
    return keys
