"""Each value is compared with the first that was ever loaded, not with the one before.

Refused: what changed earlier may live longer again
"""


def read(id):
    value = client.get(KEY + id)
    if value is not None:
        return value
    value = load(id)
    if id not in before:
        lives[id] = FIRST
        before[id] = value
    elif value == before[id]:
        lives[id] = min(2 * lives[id], HIGH)
    else:
        lives[id] = max(lives[id] // 2, LOW)
    client.set(KEY + id, value, px=lives[id])
    return value
