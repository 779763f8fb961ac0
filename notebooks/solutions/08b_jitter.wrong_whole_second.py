"""The limit is for a tenth of a second, and is taken for a second: ten times the jitter.

Refused: not yet 1,000 keys of 10 s, 20 loads (the jitter is 5.0)
"""


def enough_jitter(keys, ttl, limit):
    return keys / (ttl * limit)
