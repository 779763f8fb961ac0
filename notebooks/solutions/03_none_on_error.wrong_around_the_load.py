"""The right errors, but around the load as well: when the SET fails, the load is made twice.

Refused: ADA, 2 loads
"""


def safe(client, load, user_id):
    try:
        return get_user(client, load, user_id)
    except redis.RedisError:
        return load(user_id)
