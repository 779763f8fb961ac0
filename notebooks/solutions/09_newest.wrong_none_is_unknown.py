"""A deletion is taken for a row of which nothing is known yet: what is older fills it.

Refused: not yet  a row that was deleted last is to be deleted (it gives {'ada': 'there'})
"""


def newest(messages):
    kept = {}
    for message, write in sorted(messages, key=lambda one: place(one[0]), reverse=True):
        if kept.get(write["id"]) is None:
            kept[write["id"]] = write["value"]
    return kept
