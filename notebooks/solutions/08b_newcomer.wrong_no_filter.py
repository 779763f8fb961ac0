"""The filter is not told, and turns the newcomer away.

Refused: not yet who was turned away by the filter is let in (a read gives None)
"""


def register(id, value):
    database.put(id, value)
    remembering.invalidate(id)
