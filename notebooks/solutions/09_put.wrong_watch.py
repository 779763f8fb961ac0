"""WATCH tells that another has stored, and his value stays: his commit came before.

Refused: not yet  a writer who comes before the commit leaves nothing else
(the cache says 'ben', the database 'ada')
"""

from redis import WatchError


def put(id, value):
    with client.pipeline() as pipe:
        pipe.watch(KEY + id)
        database.put(id, value)
        pipe.multi()
        pipe.set(KEY + id, value, ex=60)
        try:
            pipe.execute()
        except WatchError:
            pass
