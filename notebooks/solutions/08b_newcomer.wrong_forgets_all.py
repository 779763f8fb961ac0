"""The whole cache is thrown away for one newcomer.

Refused: let in (whoever comes next throws away his copy)
"""


def register(id, value):
    database.put(id, value)
    add(filter, id, hashes)
    forget()
