"""One client is kept and handed out; but everybody who found none yet has made one.

Refused: not yet  fifty threads get one client (50 were made)
"""

lock, the_client = Lock(), None


def shared_client():
    global the_client
    if the_client is None:
        mine = slow_client()
        with lock:
            if the_client is None:
                the_client = mine
    return the_client
