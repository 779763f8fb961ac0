"""Often read, a key loads as it expires.

0.1 s of keys spread over jitter * ttl seconds are to be the limit.
"""


def enough_jitter(keys, ttl, limit):
    return 0.1 * keys / (ttl * limit)
