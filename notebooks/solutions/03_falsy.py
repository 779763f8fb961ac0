"""0 is a hit: only an absent key is a miss."""


def unread(client, load, user_id):
    text = client.get(KEY + user_id)
    if text is None:
        text = load(user_id)
        client.set(KEY + user_id, text, ex=60)
    return int(text)
