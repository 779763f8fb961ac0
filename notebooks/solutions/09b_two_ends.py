"""The next reader begins the refresh, and until it ends the value grows older: both come off."""


def two_ends(fresh, oldest, load, gap):
    ttl = fresh - load - gap
    return ttl, oldest - ttl
