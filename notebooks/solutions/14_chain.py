"""A count of followers for each id, and the last id of each stream."""


class Chain:
    def __init__(self):
        self.followed, self.last = defaultdict(Counter), {}

    def next(self, id, stream):
        if stream in self.last:
            self.followed[self.last[stream]][id] += 1
        self.last[stream] = id
        past = self.followed[id]
        return past.most_common(1)[0][0] if past else None
