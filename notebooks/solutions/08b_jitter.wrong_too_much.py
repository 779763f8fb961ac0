"""As much jitter as there can be: it fits, and shortens lives for nothing.

Refused: too much jitter
"""


def enough_jitter(keys, ttl, limit):
    return 1.0
