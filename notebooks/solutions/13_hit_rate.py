"""Subtract what was counted before, unless the counters have begun anew; no reads, no rate."""


def hit_rate(before, after):
    hits, misses = after["keyspace_hits"], after["keyspace_misses"]
    if hits >= before["keyspace_hits"] and misses >= before["keyspace_misses"]:
        hits -= before["keyspace_hits"]
        misses -= before["keyspace_misses"]
    return hits / (hits + misses) if hits + misses else None
