"""All keys in one trip: it works, and asks the server for a thousand values at a time.

Refused: the server is asked ten times
"""


def read_users(keys):
    return dict(zip(keys, ours.mget(keys), strict=True))
