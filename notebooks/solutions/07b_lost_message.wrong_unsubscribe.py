"""A connection that breaks is expected to say goodbye.

Refused: not yet  after a cut the old version is gone
"""


def heard(copies, message):
    if message["type"] == "unsubscribe":
        copies.clear()
    elif message["type"] == "message":
        copies.pop(message["data"], None)
