"""After a restart it says None, though the counters say all that there is.

Refused: not yet  restarted, and read since: 0.75 (it says None)
"""


def hit_rate(before, after):
    hits = after["keyspace_hits"] - before["keyspace_hits"]
    misses = after["keyspace_misses"] - before["keyspace_misses"]
    if hits < 0 or misses < 0 or hits + misses == 0:
        return None
    return hits / (hits + misses)
