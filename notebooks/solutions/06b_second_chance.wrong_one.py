"""It spares one key, and evicts the next one whether it was hit or not.

Refused: not yet  where all were hit, each has been spared, and the first one goes
"""


class SecondChance(Queue):
    def evict(self):
        out = self.queue.popleft()
        if self.used[out]:
            self.used[out] = False
            self.queue.append(out)
            out = self.queue.popleft()
        del self.used[out]
