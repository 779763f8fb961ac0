"""ConnectionError alone: a server that answers, and refuses, is away as well.

Refused: OutOfMemoryError, 1 loads
"""


def safe(client, load, user_id):
    text = None
    try:
        text = client.get(KEY + user_id)
    except redis.ConnectionError:
        pass
    if text is not None:
        return json.loads(text)
    text = json.dumps(load(user_id))
    try:
        client.set(KEY + user_id, text, ex=5 if text == "null" else 60)
    except redis.ConnectionError:
        pass
    return json.loads(text)
