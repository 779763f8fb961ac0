"""It walks in large steps, and deletes each key with a command of its own.

Refused: not yet  fewer commands than keys
"""

import re


def delete_prefix(client, prefix):
    literal = re.sub(r"([*?\[\]\\])", r"\\\1", prefix)
    for name in client.scan_iter(literal + "*", count=1000):
        client.unlink(name)
