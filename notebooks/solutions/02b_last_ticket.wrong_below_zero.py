"""It decides by what DECR returns, and leaves the stock below 0.

Refused: not yet  sold out, the stock is 0
"""


def take_ticket(name):
    return counter.decr(name) >= 0
