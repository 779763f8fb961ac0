"""Ask first for the one message that removes one copy; any other that tells of a change forgets."""


def heard(copies, message):
    match message:
        case {"type": "message", "data": id} if id in copies:
            del copies[id]
        case {"type": "subscribe"}:
            for id in list(copies):
                del copies[id]
