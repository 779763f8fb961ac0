"""What was counted before the window is counted with it.

Refused: not yet  100 hits more, 300 misses more: 0.25
"""


def hit_rate(before, after):
    hits, misses = after["keyspace_hits"], after["keyspace_misses"]
    return hits / (hits + misses) if hits + misses else None
