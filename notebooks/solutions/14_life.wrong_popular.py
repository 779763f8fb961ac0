"""Hits no longer prolong this life, but the next one: it adapts to reads, not to changes.

Refused: hits do not count at the next load
"""


def read(id):
    value = client.get(KEY + id)
    if value is not None:
        lives[id] = min(2 * lives[id], HIGH)
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
