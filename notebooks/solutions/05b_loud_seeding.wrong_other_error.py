"""Another error takes its place: who waits for Redis's own does not catch it.

Refused: the error of a full server reaches the caller
"""

from redis import RedisError


def seed_loudly(client, users, size=100):
    written, items = 0, list(users.items())
    try:
        for start in range(0, len(items), size):
            client.mset(batch := dict(items[start : start + size]))
            written += len(batch)
    except RedisError:
        raise RuntimeError(f"{written} of {len(items)} users were written") from None
    return written
