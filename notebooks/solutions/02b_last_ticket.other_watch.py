"""WATCH, and start over when somebody else has sold meanwhile."""


def take_ticket(name):
    def take(block):
        left = int(block.get(name))
        block.multi()
        if left > 0:
            block.decr(name)
        return left > 0

    return counter.transaction(take, name, value_from_callable=True)
