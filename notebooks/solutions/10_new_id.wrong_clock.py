"""A hash hides what was hashed, but who knows the second can try all its microseconds.

Refused: two log-ins get one id, at one time and one state of `random`
"""

import hashlib
import time


def log_in(client, old, user):
    id = hashlib.sha256(f"{user}{time.time()}".encode()).hexdigest()
    fields = client.hgetall(f"session:{old}") | {"user": user}
    client.hset(f"session:{id}", mapping=fields)
    client.expire(f"session:{id}", 1800)
    client.delete(f"session:{old}")
    return id
