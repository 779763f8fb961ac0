"""Whole hundreds alone: the keys after the last one are never read.

Refused: keys that fill no hundred are read, too
"""


def read_users(keys):
    found = {}
    for number in range(max(1, len(keys) // 100)):
        some = keys[100 * number : 100 * number + 100]
        found.update(zip(some, ours.mget(some), strict=True))
    return found
