"""The whole entry that was read is compared, and with it the token."""

SWAP = COMPARE.replace("2000", "ARGV[3]")


def replace(client, key, seen, value, px):
    held = client.get(key)
    if held is not None and held.startswith(seen + "|"):
        client.eval(SWAP, 1, key, held, f"{uuid4().hex}|{value}", px)
