"""The read rate is taken as one a second, whatever it is.

Refused: not yet  read every minute, changed every hour, 1 % stale
"""


def choose_ttl(read_rate, change_rate, most_stale, least_hits):
    fresh = [t for t in range(1, 3601) if workload.ttl_stale_share(1, change_rate, t) <= most_stale]
    if fresh and workload.ttl_hit_rate(read_rate, max(fresh)) >= least_hits:
        return max(fresh)
    return None
