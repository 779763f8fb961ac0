"""Ask the cached function one thread at a time: who comes while the client is made waits for it."""

lock, the_client = Lock(), cache(slow_client)


def shared_client():
    with lock:
        return the_client()
