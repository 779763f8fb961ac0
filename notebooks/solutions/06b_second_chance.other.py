"""The queue is turned like a clock, until an unmarked key stands in front."""


class SecondChance(Queue):
    def evict(self):
        while self.used[self.queue[0]]:
            self.used[self.queue[0]] = False
            self.queue.rotate(-1)
        del self.used[self.queue.popleft()]
