"""The message with the highest place counts, its two numbers compared as numbers."""


def newest(messages):
    messages = sorted(messages, key=lambda one: place(one[0]))
    return {write["id"]: write["value"] for _, write in messages}
