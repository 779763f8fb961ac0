"""The interval is halved until it is narrow enough, which ends at no whole second.

Refused: is no whole number of seconds
"""


def choose_ttl(read_rate, change_rate, most_stale, least_hits):
    keeps, breaks = 0.0, 3601.0
    while breaks - keeps > 0.01:
        middle = (keeps + breaks) / 2
        if workload.ttl_stale_share(read_rate, change_rate, middle) <= most_stale:
            keeps = middle
        else:
            breaks = middle
    if keeps < 1 or workload.ttl_hit_rate(read_rate, keeps) < least_hits:
        return None
    return keeps
