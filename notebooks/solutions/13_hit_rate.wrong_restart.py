"""After a restart the counters are less than before, and it subtracts all the same.

Refused: not yet  restarted, and read since: 0.75
"""


def hit_rate(before, after):
    hits = after["keyspace_hits"] - before["keyspace_hits"]
    misses = after["keyspace_misses"] - before["keyspace_misses"]
    return hits / (hits + misses) if hits + misses else None
