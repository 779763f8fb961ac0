"""The bound is put on a copy's chance to be stale when it expires, not on the share of answers.

Refused: not yet  read every second, changed every hour, 1 % stale
"""

from math import exp


def choose_ttl(read_rate, change_rate, most_stale, least_hits):
    fresh = [t for t in range(1, 3601) if 1 - exp(-change_rate * t) <= most_stale]
    if fresh and workload.ttl_hit_rate(read_rate, max(fresh)) >= least_hits:
        return max(fresh)
    return None
