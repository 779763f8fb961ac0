"""RENAME moves the session; where there is none to move, one begins."""

import uuid

from redis import ResponseError


def log_in(client, old, user):
    id = str(uuid.uuid4())
    try:
        client.rename(f"session:{old}", f"session:{id}")
    except ResponseError:  # there is no such session
        pass
    client.hset(f"session:{id}", "user", user)
    client.expire(f"session:{id}", 1800)
    return id
