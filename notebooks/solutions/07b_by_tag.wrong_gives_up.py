"""EXEC deletes nothing if the set has changed since it was watched, and nobody tries again.

Refused: not yet  what is stored meanwhile is gone, or still named (501 pages are left)
"""

from redis import WatchError


def by_tag(server):
    with server.pipeline() as pipe:
        pipe.watch("tag:prices")
        names = pipe.smembers("tag:prices")
        pipe.multi()
        pipe.unlink(*names, "tag:prices")
        try:
            pipe.execute()
        except WatchError:
            pass
