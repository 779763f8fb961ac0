"""It halves without end, since a middle that is too small is kept as the lower end.

Refused: no end after
"""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, skew)
    low, high = 1, KEYS
    while low < high:
        middle = (low + high) // 2
        if workload.che(law, middle) >= target:
            high = middle
        else:
            low = middle
    return high
