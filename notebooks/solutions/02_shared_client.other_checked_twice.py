"""It looks, and looks again once it has the lock: only the first callers ever wait for it."""

lock, the_client = Lock(), None


def shared_client():
    global the_client
    if the_client is None:
        with lock:
            if the_client is None:
                the_client = slow_client()
    return the_client
