"""The first of each row is kept: the batch is read backwards.

Refused: not yet  a row that was deleted last is to be deleted
"""


def newest(messages):
    kept = {}
    for _, write in messages:
        kept.setdefault(write["id"], write["value"])
    return kept
