"""The share is taken for a tenth, whatever was asked for.

Refused: a share of a half needs a fifth of the batch
"""

from math import ceil


def batch_for(trip, each, share=0.1):
    return max(1, ceil(10 * trip / each))
