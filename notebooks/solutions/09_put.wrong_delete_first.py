"""The key goes first: a reader puts the old value back before the commit.

Refused: not yet  a reader who comes before the commit leaves nothing old
"""


def put(id, value):
    client.delete(KEY + id)
    database.put(id, value)
