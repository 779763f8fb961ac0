"""Solved for the share of misses: h and 1 - h have changed places.

Refused: a tenth of the load, free stores: 1 in 10
"""


def break_even(get, load, store):
    return (load - get) / (load + store)
