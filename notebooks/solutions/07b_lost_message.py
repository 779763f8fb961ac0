"""A new subscription means that messages may have been missed: forget everything."""


def heard(copies, message):
    if message["type"] == "subscribe":
        copies.clear()
    elif message["type"] == "message":
        copies.pop(message["data"], None)
