"""An error of the database is swallowed: the caller takes the write for done.

Refused: (the caller takes it for done)
"""


def put(id, value):
    try:
        database.put(id, value)
    except Exception:
        pass
    client.delete(KEY + id)
