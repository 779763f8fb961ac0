"""The ids are all different, and whoever has one knows those of the others.

Refused: one that short can be tried out
"""


def log_in(client, old, user):
    id = str(client.incr("last-session"))
    fields = client.hgetall(f"session:{old}") | {"user": user}
    client.hset(f"session:{id}", mapping=fields)
    client.expire(f"session:{id}", 1800)
    client.delete(f"session:{old}")
    return id
