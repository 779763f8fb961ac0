"""The smallest batch whose trips cost at most a share of the work.

That is trip / batch <= share * each, solved for batch.
"""

from math import ceil


def batch_for(trip, each, share=0.1):
    return max(1, ceil(trip / (share * each)))
