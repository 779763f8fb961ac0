"""The life changes where a load shows something: the value is the same as before, or another."""


def read(id):
    value = client.get(KEY + id)
    if value is not None:
        return value
    value = load(id)
    if id not in before:
        lives[id] = FIRST
    elif value == before[id]:
        lives[id] = min(2 * lives[id], HIGH)
    else:
        lives[id] = max(lives[id] // 2, LOW)
    before[id] = value
    client.set(KEY + id, value, px=lives[id])
    return value
