"""First all that was written, then all that was deleted: a row that came back is gone.

Refused: not yet  one that was written after that is there
"""


def newest(messages):
    messages = sorted(messages, key=lambda one: place(one[0]))
    kept = {write["id"]: write["value"] for _, write in messages if write["value"] is not None}
    return kept | {write["id"]: None for _, write in messages if write["value"] is None}
