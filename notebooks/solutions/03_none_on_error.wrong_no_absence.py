"""Absence is not remembered: each read of a user who does not exist is a load.

Refused: nobody: 10 loads in ten reads
"""


def safe(client, load, user_id):
    text = None
    try:
        text = client.get(KEY + user_id)
    except redis.RedisError:
        pass
    if text is not None:
        return json.loads(text)
    value = load(user_id)
    if value is not None:
        try:
            client.set(KEY + user_id, json.dumps(value), ex=60)
        except redis.RedisError:
            pass
    return value
