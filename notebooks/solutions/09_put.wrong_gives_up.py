"""One writer at a time: the other one goes away, and nobody knows that he has not written.

Refused: (ben's write came to no commit, and he was not told)
"""


def put(id, value):
    if not client.set(KEY + id + ":lock", "1", nx=True, ex=5):
        return
    try:
        database.put(id, value)
        client.set(KEY + id, value, ex=60)
    finally:
        client.delete(KEY + id + ":lock")
