"""Counter by counter, over the reads in all."""


def hit_rate(before, after):
    restarted = any(after[name] < before[name] for name in after)
    grown = {name: after[name] - (0 if restarted else before[name]) for name in after}
    reads = sum(grown.values())
    if reads == 0:
        return None
    return grown["keyspace_hits"] / reads
