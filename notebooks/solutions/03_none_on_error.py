"""An error is no absence: when Redis is away, the database has the value."""


def safe(client, load, user_id):
    try:
        return get_user(client, load, user_id)
    except redis.RedisError:
        return load(user_id)
