"""`*`, `?`, `[` and `]` are taken literally, and a backslash in the prefix is not.

Refused: not yet  as many keys go as have the prefix
"""

import re


def delete_prefix(client, prefix):
    in_batches(client, re.sub(r"([*?\[\]])", r"\\\1", prefix))
