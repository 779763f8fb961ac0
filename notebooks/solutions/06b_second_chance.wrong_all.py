"""At each eviction all marks are taken away, also of keys that were not reached.

Refused: not yet  only what is reached loses its mark
"""


class SecondChance(Queue):
    def evict(self):
        unused = [id for id in self.queue if not self.used[id]]
        out = unused[0] if unused else self.queue[0]
        while self.queue[0] != out:
            self.queue.rotate(-1)
        self.queue.popleft()
        del self.used[out]
        self.used = dict.fromkeys(self.queue, False)
