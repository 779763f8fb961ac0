"""Nothing bounds the life: a quiet row is kept for hours, and its first change goes unseen.

Refused: no life is longer than HIGH
"""


def read(id):
    value = client.get(KEY + id)
    if value is not None:
        return value
    value = load(id)
    if id not in before:
        lives[id] = FIRST
    elif value == before[id]:
        lives[id] = 2 * lives[id]
    else:
        lives[id] = max(lives[id] // 2, 1)
    before[id] = value
    client.set(KEY + id, value, px=lives[id])
    return value
