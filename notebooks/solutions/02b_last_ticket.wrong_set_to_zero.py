"""Below 0 it sets the stock to 0: what came in meanwhile is lost.

Refused: not yet  ten more come in meanwhile: none of them is lost
"""


def take_ticket(name):
    if counter.decr(name) >= 0:
        return True
    counter.set(name, 0)
    return False
