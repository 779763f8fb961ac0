"""The jitter is rounded up to a tenth: it fits, and shortens lives more than it need.

Refused: not yet 50,000 keys of 300 s, 100 loads (only 83 expiries per 100 ms: too much jitter)
"""

from math import ceil


def enough_jitter(keys, ttl, limit):
    return ceil(10 * 0.1 * keys / (ttl * limit)) / 10
