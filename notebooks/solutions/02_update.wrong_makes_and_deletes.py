"""It makes the key, and deletes it if there was none: others see it in between.

Refused: not yet  an absent key stays absent, after each command
"""


def update(name, value):
    if client.set(name, value, keepttl=True, get=True) is None:
        client.delete(name)
