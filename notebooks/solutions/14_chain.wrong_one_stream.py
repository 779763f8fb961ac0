"""It takes all reads for one reader's: between two of one stream lie those of others.

Refused: reads of another stream do not follow
"""


class Chain:
    def __init__(self):
        self.followed, self.last = defaultdict(Counter), None

    def next(self, id, stream):
        if self.last is not None:
            self.followed[self.last][id] += 1
        self.last = id
        past = self.followed[id]
        return past.most_common(1)[0][0] if past else None
