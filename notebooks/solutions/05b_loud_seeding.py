"""The same loop, loud: a narrow except that adds what is known and raises."""

from redis import RedisError


def seed_loudly(client, users, size=100):
    written, items = 0, list(users.items())
    try:
        for start in range(0, len(items), size):
            client.mset(batch := dict(items[start : start + size]))
            written += len(batch)
    except RedisError as error:
        error.add_note(f"{written} of {len(items)} users were written")
        raise
    return written
