"""Often read, a key loads as it expires: keys * 0.1 s spread over jitter * ttl seconds."""


def enough_jitter(keys, ttl, limit):
    return 0.1 * keys / (ttl * limit)
