"""It takes no hits for no reads.

Refused: not yet  no hit in this window: 0 (it says None)
"""


def hit_rate(before, after):
    hits, misses = after["keyspace_hits"], after["keyspace_misses"]
    if hits >= before["keyspace_hits"] and misses >= before["keyspace_misses"]:
        hits -= before["keyspace_hits"]
        misses -= before["keyspace_misses"]
    return hits / (hits + misses) if hits else None
