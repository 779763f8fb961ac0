"""A deletion is no value, and is left out: the row stays.

Refused: not yet  a row that was deleted last is to be deleted
"""


def newest(messages):
    messages = sorted(messages, key=lambda one: place(one[0]))
    return {write["id"]: write["value"] for _, write in messages if write["value"] is not None}
