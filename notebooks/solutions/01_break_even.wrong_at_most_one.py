"""Cut off at 1: "never" then looks like "when every read hits".

Refused: a cache slower than its origin never pays
"""


def break_even(get, load, store):
    return min(1, (get + store) / (load + store))
