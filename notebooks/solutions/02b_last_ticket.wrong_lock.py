"""A Python lock keeps out the threads of this process, and no other program.

Refused: not yet  with others, 100 of 100
"""


def take_ticket(name):
    with lock:
        left = int(counter.get(name))
        if left == 0:
            return False
        counter.set(name, left - 1)
        return True
