"""What is right for the first site is taken for all.

Refused: not yet 50,000 keys of 300 s, 100 loads (only 33 expiries
"""


def enough_jitter(keys, ttl, limit):
    return 0.5
