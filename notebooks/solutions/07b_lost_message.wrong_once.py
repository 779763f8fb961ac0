"""Only the first two subscriptions count: after a second cut nothing is forgotten.

Refused: after the second: False
"""

subscribed = []


def heard(copies, message):
    if message["type"] == "subscribe":
        subscribed.append(message)
        if len(subscribed) <= 2:
            copies.clear()
    elif message["type"] == "message":
        copies.pop(message["data"], None)
