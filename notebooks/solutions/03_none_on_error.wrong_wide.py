"""`except Exception` around each command: a slip of the pen switches the cache off in silence.

Refused: not yet  a slip reaches us
"""


def safe(client, load, user_id):
    text = None
    try:
        text = client.get(KEY + user_id)
    except Exception:
        pass
    if text is not None:
        return json.loads(text)
    text = json.dumps(load(user_id))
    try:
        client.set(KEY + user_id, text, ex=5 if text == "null" else 60)
    except Exception:
        pass
    return json.loads(text)
