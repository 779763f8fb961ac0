"""Lives are taken to be spread to both sides, over twice the jitter: half of what is needed.

Refused: not yet 1,000 keys of 10 s, 20 loads (40 expiries per 100 ms)
"""


def enough_jitter(keys, ttl, limit):
    return 0.1 * keys / (2 * ttl * limit)
