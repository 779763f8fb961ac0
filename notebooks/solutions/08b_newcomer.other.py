"""The filter first, so that nobody is turned away once the row is there."""


def register(id, value):
    add(filter, id, hashes)
    database.put(id, value)
    remembering.invalidate(id)
