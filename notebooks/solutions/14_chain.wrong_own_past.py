"""It keeps a table for each stream: what one reader has shown helps no other.

Refused: what one stream has shown holds for another
"""


class Chain:
    def __init__(self):
        self.followed, self.last = defaultdict(Counter), {}

    def next(self, id, stream):
        if stream in self.last:
            self.followed[stream, self.last[stream]][id] += 1
        self.last[stream] = id
        past = self.followed[stream, id]
        return past.most_common(1)[0][0] if past else None
