"""Ids are compared as texts: "10" stands before "9".

Refused: not yet  the tenth message of a millisecond is newer than the ninth
"""


def newest(messages):
    messages = sorted(messages, key=lambda one: one[0])
    return {write["id"]: write["value"] for _, write in messages}
