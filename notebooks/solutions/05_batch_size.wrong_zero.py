"""Without a trip this is a batch of no command at all.

Refused: without any trip a batch of 1 is enough
"""

from math import ceil


def batch_for(trip, each, share=0.1):
    return ceil(trip / (share * each))
