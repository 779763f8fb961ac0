"""Store only under the lease that was taken before the load."""


class Repaired:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl_ms = connect(url), load, int(1000 * ttl)

    def get(self, id):
        held = self.client.get(id)
        if held is None:
            token = f"lease:{uuid4().hex}"
            held = self.client.set(id, token, nx=True, get=True, px=10_000)
            if held is None:
                value = self.load(id)
                self.client.eval(STORE_IF, 1, id, token, value, self.ttl_ms)
                return value
        return self.load(id) if held.startswith("lease:") else held

    def invalidate(self, id):
        self.client.delete(id)
