"""Cut off instead of rounded up: the batch is a command too small.

Refused: the trips cost at most a tenth of the work
"""


def batch_for(trip, each, share=0.1):
    return max(1, int(trip / (share * each)))
