"""Values expire after a second, and nobody has anything of them.

Refused: not yet  a value lives for minutes, and not for ever (it lives for 1 s)
"""


def fill(client, key, value):
    client.set(key, value, ex=1)
