"""It is LRU: a hit moves the key to the end, and nothing is marked.

Refused: not yet  a hit only marks, it moves nothing
"""


class SecondChance(Queue):
    def hit(self, id):
        was_there = super().hit(id)
        if was_there:
            self.queue.remove(id)
            self.queue.append(id)
        return was_there

    def evict(self):
        out = self.queue.popleft()
        del self.used[out]
