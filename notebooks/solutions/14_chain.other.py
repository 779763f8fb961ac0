"""Pairs are counted in one dict."""


class Chain:
    def __init__(self):
        self.pairs, self.last = {}, {}

    def next(self, id, stream):
        pair = (self.last.get(stream), id)
        self.pairs[pair] = self.pairs.get(pair, 0) + 1
        self.last[stream] = id
        times = {after: count for (one, after), count in self.pairs.items() if one == id}
        return max(times, key=times.get) if times else None
