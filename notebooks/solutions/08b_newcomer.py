"""Row, filter and cache are told; the delete comes after the row."""


def register(id, value):
    database.put(id, value)
    add(filter, id, hashes)
    remembering.invalidate(id)
