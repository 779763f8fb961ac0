"""Only the time is compared: what came in one millisecond has no order.

Refused: not yet  the tenth message of a millisecond is newer than the ninth
"""


def newest(messages):
    messages = sorted(messages, key=lambda one: int(one[0].split("-")[0]))
    return {write["id"]: write["value"] for _, write in messages}
