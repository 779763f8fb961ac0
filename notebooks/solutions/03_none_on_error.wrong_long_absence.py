"""An absence is remembered for as long as a value: who registers meanwhile stays unknown.

Refused: nobody: absent for 60 s
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
        client.set(KEY + user_id, text, ex=60)
    except redis.RedisError:
        pass
    return json.loads(text)
