"""The copy is deleted twice, with a pause between: loads that outlast the pause store after it.

Refused: not yet  an overtaken load leaves nothing
"""


class Repaired:
    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl_ms = connect(url), load, int(1000 * ttl)

    def get(self, id):
        value = self.client.get(id)
        if value is None:
            value = self.load(id)
            self.client.set(id, value, px=self.ttl_ms)
        return value

    def invalidate(self, id):
        self.client.delete(id)
        sleep(0.05)
        self.client.delete(id)
