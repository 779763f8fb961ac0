"""The delete comes before the row: a read between the two remembers the absence again.

Refused: not yet and who is asked for while register is at work (a read gives None)
"""


def register(id, value):
    add(filter, id, hashes)
    remembering.invalidate(id)
    database.put(id, value)
