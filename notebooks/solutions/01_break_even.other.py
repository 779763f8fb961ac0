"""From the two ends of the straight line: all misses, nothing but hits."""


def break_even(get, load, store):
    nothing_hits = get + load + store
    everything_hits = get
    return (nothing_hits - load) / (nothing_hits - everything_hits)
