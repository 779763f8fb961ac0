"""One command, which asks whether anything is there, and not what.

Refused: not yet  what was loaded anew stays, though the value is the same (the key then holds v2)
"""


def replace(client, key, seen, value, px):
    client.set(key, f"{uuid4().hex}|{value}", px=px, xx=True)
