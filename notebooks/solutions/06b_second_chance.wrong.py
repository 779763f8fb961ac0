"""A key that is spared is put back, and nothing is evicted in its place.

Refused: not yet  it never holds more than its room
"""


class SecondChance(Queue):
    def evict(self):
        out = self.queue.popleft()
        if self.used[out]:
            self.used[out] = False
            self.queue.append(out)
        else:
            del self.used[out]
