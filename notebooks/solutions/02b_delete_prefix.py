"""Walk in large steps, delete in batches, and take the prefix literally."""

import re


def delete_prefix(client, prefix):
    literal = re.sub(r"([*?\[\]\\])", r"\\\1", prefix)
    in_batches(client, literal)
