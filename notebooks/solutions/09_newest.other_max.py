"""Row by row, the one with the highest place."""


def newest(messages):
    ids = {write["id"] for _, write in messages}
    of = {id: [one for one in messages if one[1]["id"] == id] for id in ids}
    return {id: max(of[id], key=lambda one: place(one[0]))[1]["value"] for id in ids}
