"""It asks of each counter alone whether it has begun anew: then one is of another window.

Refused: not yet  restarted, with more hits than before: 0.75
"""


def hit_rate(before, after):
    hits, misses = (
        after[name] - (before[name] if after[name] >= before[name] else 0)
        for name in ("keyspace_hits", "keyspace_misses")
    )
    return hits / (hits + misses) if hits + misses else None
