"""Deleted before, too, so that a crash in the midst is more likely to leave nothing."""


def put(id, value):
    client.delete(KEY + id)
    database.put(id, value)
    client.delete(KEY + id)
