"""The script keeps the expiry of the lease: the value lives ten seconds, whatever its TTL.

Refused: not yet  its value expires (milliseconds that it has left of 60,000:
"""

STORE_IF_MINE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1"""


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
            self.client.eval(STORE_IF_MINE, 1, id, token, value)
        return value

    def invalidate(self, id):
        self.client.delete(id)
