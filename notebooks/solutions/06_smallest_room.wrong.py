"""It halves well, and returns the last size that is not enough.

Refused: not yet  with so many keys LRU has the hit rate
"""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, skew)
    low, high = 0, KEYS
    while high - low > 1:
        middle = (low + high) // 2
        if workload.che(law, middle) >= target:
            high = middle
        else:
            low = middle
    return low
