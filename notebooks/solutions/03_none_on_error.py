"""An error is no absence: each command to Redis may fail by itself, and the load stands apart."""


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
        client.set(KEY + user_id, text, ex=5 if text == "null" else 60)
    except redis.RedisError:
        pass
    return json.loads(text)
