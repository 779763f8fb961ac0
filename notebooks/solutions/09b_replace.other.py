"""WATCH: what comes between look and store makes EXEC store nothing."""

from redis import WatchError


def replace(client, key, seen, value, px):
    with client.pipeline() as pipe:
        pipe.watch(key)
        held = pipe.get(key)
        if held is None or held.partition("|")[0] != seen:
            return
        pipe.multi()
        pipe.set(key, f"{uuid4().hex}|{value}", px=px)
        try:
            pipe.execute()
        except WatchError:
            pass
