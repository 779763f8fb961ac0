"""Only the GET is guarded: a server that refuses SET fails the read, although the value is there.

Refused: OutOfMemoryError, 1 loads
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
    client.set(KEY + user_id, text, ex=5 if text == "null" else 60)
    return json.loads(text)
