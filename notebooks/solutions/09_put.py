"""The database first, then the key goes: two deletes have no order."""


def put(id, value):
    database.put(id, value)
    client.delete(KEY + id)
