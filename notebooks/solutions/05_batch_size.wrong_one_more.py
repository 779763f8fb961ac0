"""Cut off, and one more: where trips cost exactly the share, that is one too many.

Refused: not yet  trips that cost exactly the share are cheap enough
"""


def batch_for(trip, each, share=0.1):
    return int(trip / (share * each)) + 1
