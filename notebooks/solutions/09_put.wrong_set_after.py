"""The value is stored after the commit: two writers store in another order than they committed.

Refused: not yet  nor does one who comes right after it (the cache says 'ada', the database 'ben')
"""


def put(id, value):
    database.put(id, value)
    client.set(KEY + id, value, ex=60)
