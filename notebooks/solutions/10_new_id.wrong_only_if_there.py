"""An id whose session has expired is not replaced, and may have been planted as well.

Refused: not yet  an id that somebody planted opens nothing any more (one that has expired opens
"""

import secrets


def log_in(client, old, user):
    id = secrets.token_urlsafe(32) if client.exists(f"session:{old}") else old
    fields = client.hgetall(f"session:{old}") | {"user": user}
    client.delete(f"session:{old}")
    client.hset(f"session:{id}", mapping=fields)
    client.expire(f"session:{id}", 1800)
    return id
