"""It collects all names, and sends UNLINK without a name where there are none.

Refused: not yet  no key with the prefix, no error
"""

import re


def delete_prefix(client, prefix):
    literal = re.sub(r"([*?\[\]\\])", r"\\\1", prefix)
    client.unlink(*client.scan_iter(literal + "*", count=1000))
