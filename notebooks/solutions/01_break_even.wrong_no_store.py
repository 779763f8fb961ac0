"""The store is forgotten: a miss makes two trips, and this pays one.

Refused: at that hit rate the mean is the load
"""


def break_even(get, load, store):
    return get / load
