"""Every process hears of every change, and this one expects to hold what has changed.

Refused: not yet  a message removes one copy (KeyError: 'eve')
"""


def heard(copies, message):
    if message["type"] == "subscribe":
        copies.clear()
    elif message["type"] == "message":
        del copies[message["data"]]
