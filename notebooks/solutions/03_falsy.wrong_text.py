"""A miss gives a number, a hit a text.

Refused: the answers are [7, '7',
"""


def unread(client, load, user_id):
    count = client.get(KEY + user_id)
    if count is None:
        count = load(user_id)
        client.set(KEY + user_id, count, ex=60)
    return count
