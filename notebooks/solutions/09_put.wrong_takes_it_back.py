"""Cache first, and taken back where the database refuses: another writer's value is not.

Refused: not yet  a writer who comes before the commit leaves nothing else
"""


def put(id, value):
    client.set(KEY + id, value, ex=60)
    try:
        database.put(id, value)
    except Exception:
        client.delete(KEY + id)
        raise
