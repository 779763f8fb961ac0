"""It reads when the key expires and sets that: who prolonged its life meanwhile is overruled.

Refused: not yet  prolonged meanwhile, it stays so
"""


def update(name, value):
    moment = client.pexpiretime(name)
    client.set(name, value, xx=True, pxat=moment if moment > 0 else None)
