"""The token is compared by a GET and the value stored by a SET: a delete fits between them.

Refused: not yet  a delete between comparing and storing is respected
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
        if held is None and self.client.get(id) == token:
            self.client.set(id, value, px=self.ttl_ms)
        return value

    def invalidate(self, id):
        self.client.delete(id)
