"""The token is compared, in two commands: who comes between is overwritten.

Refused: not yet  so it is when that happens between your commands
"""


def replace(client, key, seen, value, px):
    held = client.get(key)
    if held is not None and held.partition("|")[0] == seen:
        client.set(key, f"{uuid4().hex}|{value}", px=px)
