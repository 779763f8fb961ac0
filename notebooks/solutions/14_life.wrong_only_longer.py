"""What has changed keeps its life: it grows with each quiet load, and never shrinks.

Refused: what has changed lives half as long
"""


def read(id):
    value = client.get(KEY + id)
    if value is not None:
        return value
    value = load(id)
    if id not in before:
        lives[id] = FIRST
    elif value == before[id]:
        lives[id] = min(2 * lives[id], HIGH)
    before[id] = value
    client.set(KEY + id, value, px=lives[id])
    return value
