"""RENAME keeps what was left to live, but a session that begins here has no end.

Refused: not yet  each session expires (one stays for ever)
"""

import secrets


def log_in(client, old, user):
    id = secrets.token_urlsafe(32)
    if client.exists(f"session:{old}"):
        client.rename(f"session:{old}", f"session:{id}")
    client.hset(f"session:{id}", "user", user)
    return id
