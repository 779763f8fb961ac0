"""RENAME raises where there is nothing to move.

Refused: not yet  a browser whose old session has expired can log in, too
"""

import secrets


def log_in(client, old, user):
    id = secrets.token_urlsafe(32)
    client.rename(f"session:{old}", f"session:{id}")
    client.hset(f"session:{id}", "user", user)
    client.expire(f"session:{id}", 1800)
    return id
