"""It takes the lock and does not give it back: the second thread waits for ever.

Refused: still wait after 1.5 s
"""

lock, the_client = Lock(), cache(slow_client)


def shared_client():
    lock.acquire()
    return the_client()
