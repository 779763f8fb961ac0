"""`is None` asked of a count that `or 0` has already made of None: nothing is ever loaded.

Refused: the answers are [0, 0,
"""


def unread(client, load, user_id):
    count = int(client.get(KEY + user_id) or 0)
    if count is None:
        count = load(user_id)
        client.set(KEY + user_id, count, ex=60)
    return count
