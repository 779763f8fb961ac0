"""What was used is unmarked and put back at the end; the loop ends, since a spared key comes again unmarked."""


class SecondChance(Queue):
    def evict(self):
        while self.used[out := self.queue.popleft()]:
            self.used[out] = False
            self.queue.append(out)
        del self.used[out]
