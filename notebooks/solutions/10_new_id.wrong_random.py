"""`random` is for lots, not for secrets: who has seen some of its numbers can compute the next.

Refused: two log-ins get one id, at one time and one state of `random`
"""

import random


def log_in(client, old, user):
    id = f"{random.getrandbits(128):032x}"
    fields = client.hgetall(f"session:{old}") | {"user": user}
    client.hset(f"session:{id}", mapping=fields)
    client.expire(f"session:{id}", 1800)
    client.delete(f"session:{old}")
    return id
