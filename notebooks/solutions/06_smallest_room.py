"""The hit rate only rises with the room, so the first size that is enough is found by halving."""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, skew)
    low, high = 1, KEYS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if workload.che(law, middle) >= target else (middle + 1, high)
    return low
