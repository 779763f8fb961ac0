"""One pass: a write is kept unless a newer one is known."""


def newest(messages):
    kept = {}
    for message, write in messages:
        time, counter = map(int, message.split("-"))
        if write["id"] not in kept or (time, counter) > kept[write["id"]][0]:
            kept[write["id"]] = ((time, counter), write["value"])
    return {id: value for id, (_, value) in kept.items()}
