"""It looks without the lock: whoever has looked makes a client, one after the other.

Refused: not yet  fifty threads get one client
"""

lock, the_client = Lock(), None


def shared_client():
    global the_client
    if the_client is None:
        with lock:
            the_client = slow_client()
    return the_client
