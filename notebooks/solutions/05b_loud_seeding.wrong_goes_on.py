"""It catches around each batch and goes on: a server that is full is asked some 150 times more.

Refused: not yet  it ends at the first failure
"""

from redis import RedisError


def seed_loudly(client, users, size=100):
    written, failed, items = 0, None, list(users.items())
    for start in range(0, len(items), size):
        try:
            client.mset(batch := dict(items[start : start + size]))
            written += len(batch)
        except RedisError as error:
            failed = error
    if failed:
        failed.add_note(f"{written} of {len(items)} users were written")
        raise failed
    return written
