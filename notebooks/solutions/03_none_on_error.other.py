"""A context manager instead of try and except, and one function for both commands."""

from contextlib import suppress


def asked(command, *args, **options):
    with suppress(redis.RedisError):
        return command(*args, **options)


def safe(client, load, user_id):
    known = asked(client.get, KEY + user_id)
    if known is not None:
        return json.loads(known)
    value = load(user_id)
    lifetime = 60 if value is not None else 5
    asked(client.setex, KEY + user_id, lifetime, json.dumps(value))
    return value
