"""It solves for a room with fractions, and rounds: the half of the time to a key too few.

Refused: not yet  with so many keys LRU has the hit rate (skew 0.9: 266 keys
"""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, skew)
    low, high = 0.5, float(KEYS)
    while high - low > 1e-6:
        middle = (low + high) / 2
        if workload.che(law, middle) >= target:
            high = middle
        else:
            low = middle
    return round(high)
