"""Where nothing was read it says 0, as where everything was a miss.

Refused: not yet  nothing was read: None (it says 0.0)
"""


def hit_rate(before, after):
    hits, misses = after["keyspace_hits"], after["keyspace_misses"]
    if hits >= before["keyspace_hits"] and misses >= before["keyspace_misses"]:
        hits -= before["keyspace_hits"]
        misses -= before["keyspace_misses"]
    return hits / max(hits + misses, 1)
