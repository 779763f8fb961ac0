"""It looks whether there is one, then takes it: two may look at the last one.

Refused: not yet  a last ticket is sold once, thirty times over
"""


def take_ticket(name):
    if int(counter.get(name)) > 0:
        counter.decr(name)
        return True
    return False
