"""The old session ends, and with it what the guest had looked at.

Refused: not yet  what the guest has looked at moves along
"""

import secrets


def log_in(client, old, user):
    id = secrets.token_urlsafe(32)
    client.delete(f"session:{old}")
    client.hset(f"session:{id}", "user", user)
    client.expire(f"session:{id}", 1800)
    return id
