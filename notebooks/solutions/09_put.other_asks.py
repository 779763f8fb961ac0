"""Stored, then compared with the database: the last value to be stored is right, or goes."""


def put(id, value):
    database.put(id, value)
    client.set(KEY + id, value, ex=60)
    if database.get(id) != value:
        client.delete(KEY + id)
