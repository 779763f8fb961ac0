"""It learns from loads, and a hit still gives the value its whole life anew: no age is bounded.

Refused: a hit does not prolong its life
"""


def read(id):
    value = client.get(KEY + id)
    if value is not None:
        client.pexpire(KEY + id, HIGH)
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
