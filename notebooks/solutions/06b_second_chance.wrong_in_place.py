"""What is spared loses its mark where it stands, so it is the next to go.

Refused: not yet  what was hit is spared, and goes to the end
"""


class SecondChance(Queue):
    def evict(self):
        out = self.queue[0]
        for id in self.queue:
            if not self.used[id]:
                out = id
                break
            self.used[id] = False
        self.queue.remove(out)
        del self.used[out]
