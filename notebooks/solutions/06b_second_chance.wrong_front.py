"""What is spared goes back to the front, where it is the next to go.

Refused: not yet  what was hit is spared
"""


class SecondChance(Queue):
    def evict(self):
        out = self.queue.popleft()
        while self.used[out]:
            self.used[out] = False
            self.queue.appendleft(out)
            out = self.queue.popleft()
        del self.used[out]
