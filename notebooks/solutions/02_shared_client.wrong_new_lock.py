"""Each call has a lock of its own, which keeps nobody out.

Refused: not yet  fifty threads get one client
"""

the_client = cache(slow_client)


def shared_client():
    with Lock():
        return the_client()
