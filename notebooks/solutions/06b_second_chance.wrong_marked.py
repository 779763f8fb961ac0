"""It forgets to unmark what it spares: where all were hit, the loop never ends.

Refused: not yet  where all were hit, each has been spared, and the first one goes (no end after
"""


class SecondChance(Queue):
    def evict(self):
        out = self.queue.popleft()
        while self.used[out]:
            self.queue.append(out)
            out = self.queue.popleft()
        del self.used[out]
