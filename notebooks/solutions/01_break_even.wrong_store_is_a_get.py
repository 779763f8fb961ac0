"""Right while a store costs what a GET costs, and for no other.

Refused: with a dear store, too
"""


def break_even(get, load, store):
    return 2 * get / (load + get)
