"""Right in all but the expiry: the key lives for ever.

Refused: a TTL of -1
"""


def unread(client, load, user_id):
    text = client.get(KEY + user_id)
    if text is None:
        text = load(user_id)
        client.set(KEY + user_id, text)
    return int(text)
