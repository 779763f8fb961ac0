"""The confirmation is taken for a message about one id; its data is the number of channels.

Refused: not yet  after a cut the old version is gone
"""


def heard(copies, message):
    if message["type"] in ("message", "subscribe"):
        copies.pop(message["data"], None)
