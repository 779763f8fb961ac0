"""What was used is unmarked and put back at the end.

The loop ends, since a spared key comes again unmarked.
"""


class SecondChance(Queue):
    def evict(self):
        out = self.queue.popleft()
        while self.used[out]:
            self.used[out] = False
            self.queue.append(out)
            out = self.queue.popleft()
        del self.used[out]
