"""A hit gives the value its whole life anew: what is read often never expires.

Refused: a hit does not prolong its life
"""


def read(id):
    value = client.get(KEY + id)
    if value is not None:
        client.pexpire(KEY + id, lives[id])
        return value
    value = load(id)
    if id not in lives:
        lives[id] = FIRST
    elif value == before[id]:
        lives[id] = min(2 * lives[id], HIGH)
    else:
        lives[id] = max(lives[id] // 2, LOW)
    before[id] = value
    client.set(KEY + id, value, px=lives[id])
    return value
