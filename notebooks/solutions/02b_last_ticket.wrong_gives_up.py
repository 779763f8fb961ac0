"""WATCH, but who was disturbed is told that there is none: with tickets left, nobody starts over.

Refused: you sold none, with tickets left
"""


def take_ticket(name):
    with counter.pipeline() as block:
        block.watch(name)
        left = int(block.get(name))
        if left == 0:
            return False
        block.multi()
        block.decr(name)
        try:
            block.execute()
        except redis.WatchError:
            return False
    return True
