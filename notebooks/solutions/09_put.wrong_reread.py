"""What the database says is stored: another writer comes between asking and storing.

Refused: not yet  nor one who comes when you have asked the database again
"""


def put(id, value):
    database.put(id, value)
    client.set(KEY + id, database.get(id), ex=60)
