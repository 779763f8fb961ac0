"""There is a new id, and the old one goes on.

Refused: not yet  an id that somebody planted opens nothing any more (it opens {'seen': 'pen'})
"""

import secrets


def log_in(client, old, user):
    id = secrets.token_urlsafe(32)
    fields = client.hgetall(f"session:{old}") | {"user": user}
    client.hset(f"session:{id}", mapping=fields)
    client.expire(f"session:{id}", 1800)
    return id
