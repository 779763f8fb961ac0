"""Halve the interval: stale answers only rise with the TTL."""


def choose_ttl(read_rate, change_rate, most_stale, least_hits):
    keeps, breaks = 0, 3601
    while breaks - keeps > 1:
        middle = (keeps + breaks) // 2
        if workload.ttl_stale_share(read_rate, change_rate, middle) <= most_stale:
            keeps = middle
        else:
            breaks = middle
    if not keeps or workload.ttl_hit_rate(read_rate, keeps) < least_hits:
        return None
    return keeps
