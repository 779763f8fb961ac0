"""It takes a step that finds nothing for the end: only the number 0 is.

Refused: not yet  three keys among the many go, too
"""

import re


def delete_prefix(client, prefix):
    literal = re.sub(r"([*?\[\]\\])", r"\\\1", prefix)
    cursor = 0
    while True:
        cursor, names = client.scan(cursor, literal + "*", count=1000)
        if not names:
            return
        client.unlink(*names)
