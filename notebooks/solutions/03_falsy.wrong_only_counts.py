"""The right question at the GET, the old one at the SET: 0 is never stored.

Refused: 10 loads
"""


def unread(client, load, user_id):
    text = client.get(KEY + user_id)
    if text is not None:
        return int(text)
    count = load(user_id)
    if count:
        client.set(KEY + user_id, count, ex=60)
    return count
