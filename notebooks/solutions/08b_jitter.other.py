"""The smallest of a thousand jitters that fits, found by trying."""


def enough_jitter(keys, ttl, limit):
    for thousandths in range(1, 1001):
        width = ttl * thousandths / 1000
        if 0.1 * keys / width <= limit:
            return thousandths / 1000
    return 1.0
