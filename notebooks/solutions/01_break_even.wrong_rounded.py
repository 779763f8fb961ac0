"""Rounded to whole per cents: at that hit rate the mean is only about the load.

Refused: at that hit rate the mean is the load
"""


def break_even(get, load, store):
    return round((get + store) / (load + store), 2)
