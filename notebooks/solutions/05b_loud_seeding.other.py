"""Counts what is there from the start of the batch that failed, and catches around one MSET."""

import redis


def seed_loudly(client, users, size=100):
    items = list(users.items())
    for start in range(0, len(items), size):
        try:
            client.mset(dict(items[start : start + size]))
        except redis.RedisError as error:
            error.add_note(f"{start} of {len(items)} users were written")
            raise
    return len(items)
