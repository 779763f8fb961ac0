"""Take first and look at what is left: below 0 there was none, and it is put back."""


def take_ticket(name):
    if counter.decr(name) >= 0:
        return True
    counter.incr(name)
    return False
