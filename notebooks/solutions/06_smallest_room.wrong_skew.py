"""It takes the notebook's own skew for every skew.

Refused: not yet  with so many keys LRU has the hit rate (skew 0.6
"""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, SKEW)
    keys = 1
    while workload.che(law, keys) < target:
        keys += 1
    return keys
