"""Deleted whatever becomes of the commit: its outcome may be unknown."""


def put(id, value):
    try:
        database.put(id, value)
    finally:
        client.unlink(KEY + id)
