"""Fifty keys to a trip: that makes twenty.

Refused: the server is asked ten times (the server read 20 times)
"""


def read_users(keys):
    found = {}
    for start in range(0, len(keys), 50):
        some = keys[start : start + 50]
        found.update(zip(some, ours.mget(some), strict=True))
    return found
