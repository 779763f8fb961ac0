"""A lock keeps other refreshes away, and no invalidation: that asks for no lock.

Refused: not yet  so it is when that happens between your commands (the key then holds v2)
"""


def replace(client, key, seen, value, px):
    with client.lock(key + ":lock", timeout=5):
        held = client.get(key)
        if held is not None and held.partition("|")[0] == seen:
            client.set(key, f"{uuid4().hex}|{value}", px=px)
