"""The hit rate from which on a cache pays."""


def break_even(get, load, store):
    """Return the hit rate at which a read through the cache takes as long as a load."""
    return (get + store) / (load + store)
