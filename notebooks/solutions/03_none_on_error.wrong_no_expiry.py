"""Guarded well, and stored for ever.

Refused: the key never expires
"""


def safe(client, load, user_id):
    text = None
    try:
        text = client.get(KEY + user_id)
    except redis.RedisError:
        pass
    if text is not None:
        return json.loads(text)
    text = json.dumps(load(user_id))
    try:
        client.set(KEY + user_id, text)
    except redis.RedisError:
        pass
    return json.loads(text)
