"""What followed first is expected for ever, however often something else has followed since.

Refused: not yet  and not the first one (after a1 c1 a1 b1
"""


class Chain:
    def __init__(self):
        self.followed, self.last = {}, {}

    def next(self, id, stream):
        if stream in self.last:
            self.followed.setdefault(self.last[stream], id)
        self.last[stream] = id
        return self.followed.get(id)
