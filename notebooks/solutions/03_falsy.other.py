"""A number that no count can be stands for a miss, and the caller gets what was loaded."""


def unread(client, load, user_id):
    count = int(client.get(KEY + user_id) or -1)
    if count < 0:
        count = load(user_id)
        client.setex(KEY + user_id, 60, count)
    return count
