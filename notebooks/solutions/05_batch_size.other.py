"""Counting up until the trips cost little enough, without solving anything."""


def batch_for(trip, each, share=0.1):
    batch = 1
    while trip > share * each * batch:
        batch += 1
    return batch
