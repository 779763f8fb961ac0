"""A hundred wherever the server is: the advice that names no distance.

Refused: the trips cost at most a tenth of the work
"""


def batch_for(trip, each, share=0.1):
    return 100
