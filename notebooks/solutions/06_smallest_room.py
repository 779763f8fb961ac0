"""The hit rate only rises with the room, so the first size that is enough is found by halving."""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, skew)
    low, high = 1, KEYS
    while low < high:
        middle = (low + high) // 2
        if workload.che(law, middle) >= target:
            high = middle
        else:
            low = middle + 1
    return low
