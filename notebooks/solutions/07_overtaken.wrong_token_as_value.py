"""The token of another is taken for a value, and handed out.

Refused: stores nothing old (she gets 'lease:
"""


class Repaired:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl_ms = connect(url), load, int(1000 * ttl)

    def get(self, id):
        token = f"lease:{uuid4().hex}"
        held = self.client.set(id, token, nx=True, get=True, px=10_000)
        if held is not None:
            return held
        value = self.load(id)
        self.client.eval(STORE_IF, 1, id, token, value, self.ttl_ms)
        return value

    def invalidate(self, id):
        self.client.delete(id)
