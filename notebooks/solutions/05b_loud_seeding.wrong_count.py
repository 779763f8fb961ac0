"""Counted before it is written: the batch that failed is told as there.

Refused: its note tells how many users are there
"""

from redis import RedisError


def seed_loudly(client, users, size=100):
    written, items = 0, list(users.items())
    try:
        for start in range(0, len(items), size):
            batch = dict(items[start : start + size])
            written += len(batch)
            client.mset(batch)
    except RedisError as error:
        error.add_note(f"{written} of {len(items)} users were written")
        raise
    return written
