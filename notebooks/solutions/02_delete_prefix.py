"""Walk in large steps, delete in batches, and take the prefix literally."""

import re


def delete_prefix(client, prefix):
    literal = re.sub(r"([*?\[\]\\])", r"\\\1", prefix)
    found = client.scan_iter(literal + "*", count=1000)
    while names := list(islice(found, 1000)):
        client.unlink(*names)
