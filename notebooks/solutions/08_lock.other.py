"""The lock is released by a watched transaction instead of a script, and its token is a number."""

from secrets import randbits

from redis import WatchError


def take(client, name):
    token = str(randbits(128))
    if client.execute_command("SET", name, token, "NX", "PX", 1000) is None:
        return None
    return token


def give_back(client, name, token):
    with client.pipeline() as pipe:
        try:
            pipe.watch(name)
            if pipe.get(name) == token:
                pipe.multi()
                pipe.delete(name)
                pipe.execute()
        except WatchError:
            pass
