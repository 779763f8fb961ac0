"""Who meets the token of another loads, and stores without a lease.

Refused: not yet  who meets the token of another gets a value, and stores nothing old
"""


class Repaired:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl_ms = connect(url), load, int(1000 * ttl)

    def get(self, id):
        token = f"lease:{uuid4().hex}"
        held = self.client.set(id, token, nx=True, get=True, px=10_000)
        if held is not None and not held.startswith("lease:"):
            return held
        value = self.load(id)
        if held is None:
            self.client.eval(STORE_IF, 1, id, token, value, self.ttl_ms)
        else:
            self.client.set(id, value, px=self.ttl_ms)
        return value

    def invalidate(self, id):
        self.client.delete(id)
