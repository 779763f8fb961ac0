"""What the old session says of the user counts: Ada gets the session of whoever was there before.

Refused: not yet  who logs in is known by the id that comes back (its session is of eve)
"""

import secrets


def log_in(client, old, user):
    id = secrets.token_urlsafe(32)
    fields = {"user": user} | client.hgetall(f"session:{old}")
    client.hset(f"session:{id}", mapping=fields)
    client.expire(f"session:{id}", 1800)
    client.delete(f"session:{old}")
    return id
