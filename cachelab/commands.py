"""What a cache asks of Redis: each command is one round trip, of one id or of many."""

from collections.abc import Iterable

import redis
import redis.asyncio

from cachelab.values import milliseconds

# The one script: put the value where the lease is, or nothing for an empty one. 1: done, perhaps by a first try whose
# reply was lost. 0: the lease has gone, so the load has been overtaken.
STORE = """
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then return held == ARGV[2] and 1 or 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


class Commands:
    """The commands of a cache; with an asyncio client each is to be awaited."""

    _client: redis.Redis | redis.asyncio.Redis
    _prefix: str
    _lease: float

    def _read(self, key: str):
        return self._client.execute_command("GET", key, NEVER_DECODE=True)

    def _read_many(self, keys: list[str]):
        return self._client.execute_command("MGET", *keys, NEVER_DECODE=True)

    def _delete(self, ids: Iterable[str]):
        return self._client.delete(*(self._prefix + id for id in ids))

    def _expire(self, ids: Iterable[str]):
        """End leases that have no expiry: this cache writes none, and nobody would ever load what they hold up."""
        pipeline = self._client.pipeline(transaction=False)
        for id in ids:
            pipeline.pexpire(self._prefix + id, 1, nx=True)
        return pipeline.execute(raise_on_error=False)

    def _take(self, tokens: dict[str, str]):
        """Put a lease where nothing is; reply None where that was done, else what is there."""
        pipeline = self._client.pipeline(transaction=False)
        for id, token in tokens.items():
            words = ("NX", "GET", "PX", milliseconds(self._lease))
            pipeline.execute_command("SET", self._prefix + id, token, *words, get=True, NEVER_DECODE=True)
        return pipeline.execute(raise_on_error=False)

    def _store(self, entries: dict[str, tuple[str, str, int]]):
        pipeline = self._client.pipeline(transaction=False)
        for id, (token, text, ttl_ms) in entries.items():
            pipeline.eval(STORE, 1, self._prefix + id, token, text, ttl_ms)
        return pipeline.execute(raise_on_error=False)
