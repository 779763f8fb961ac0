"""Every size is tried from the smallest on, until one is enough."""


def smallest_room(skew, target):
    law = workload.popularity(KEYS, skew)
    keys = 1
    while workload.che(law, keys) < target:
        keys += 1
    return keys
