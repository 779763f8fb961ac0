"""A bare `except` around each command: nobody can stop the program.

Refused: not yet  Ctrl-C reaches us
"""


def safe(client, load, user_id):
    text = None
    try:
        text = client.get(KEY + user_id)
    except:
        pass
    if text is not None:
        return json.loads(text)
    text = json.dumps(load(user_id))
    try:
        client.set(KEY + user_id, text, ex=5 if text == "null" else 60)
    except:
        pass
    return json.loads(text)
