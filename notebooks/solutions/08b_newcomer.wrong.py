"""The remembered absence stays: who had the luck to pass the filter is unknown for five seconds.

Refused: not yet so is who had passed it and been remembered as absent (a read gives None)
"""


def register(id, value):
    database.put(id, value)
    add(filter, id, hashes)
