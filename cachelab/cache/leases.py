"""The commands of a cache, each one round trip, of one id or of many; and the lease.

A lease is a token at the key of a value that is being loaded. It means "nothing has been
invalidated since I was put here": the idea of Nishtala et al., "Scaling Memcache at Facebook",
NSDI 2013. It stays for ten minutes, so what it has left tells how old it is, by Redis' own clock.
Who finds it older than a holder usually needs takes it over, with the same token, and loads too;
whoever knows the token may store while it stands, the first one does. A delete ends it.
"""

import os
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import redis
import redis.asyncio

from cachelab.cache.codec import LEASE
from cachelab.cache.gate import Client
from cachelab.cache.settings import LEASE_KEPT
from cachelab.clients import shards
from cachelab.clients.shards import Command

KEPT = round(1000 * LEASE_KEPT)  # milliseconds
LIFE = str(KEPT)  # commands are of text: packing a number may crash where a signal interrupts it

# {1, token} where the caller may load: nothing was there, or a lease that is old enough or known
# to be nobody's, or text that is known to be broken. Else {0, what is there}.
TAKE = """
local held = redis.call('GET', KEYS[1])
local known = held and redis.sha1hex(held) == ARGV[4]
if held and held:sub(1, 6) == 'lease:' then
  local left = redis.call('PTTL', KEYS[1])
  if not known and held ~= ARGV[1] and left > tonumber(ARGV[3]) then return {0, held} end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, held}
end
if held and not known then return {0, held} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, ARGV[1]}
"""

LOOK = "return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}"

# Put the value where the lease is, or nothing for an empty one. 1: done, perhaps by a first try
# whose reply was lost. 0: the lease has gone, so the load has been overtaken.
STORE = """
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then return held == ARGV[2] and 1 or 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
"""


class Leases:
    """What a cache asks of Redis; with an asyncio client each command is to be awaited.

    Each command of many ids replies a list, in their order, with the errors of single ids in it;
    on a cluster it is one trip to each node that has some, to all of them at once.

    Args:
        client: A redis.Redis or RedisCluster, or an asyncio one.
        prefix: What each key starts with, in front of the id.
        lease: Seconds after which a load that has not ended may be begun by others, too.
    """

    def __init__(self, client: Client, prefix: str, lease: float):
        self._client: Any = client
        self.read = partial(self._client.execute_command, "GET", NEVER_DECODE=True)  # of a key
        look = ("EVAL", LOOK, "1")
        self.look_at = partial(self._client.execute_command, *look, NEVER_DECODE=True)  # of a key
        if isinstance(client, redis.RedisCluster):
            self.read = partial(shards.get, client)
            self.look_at = partial(shards.get, client, command=look)
        elif isinstance(client, redis.asyncio.RedisCluster):
            self.read = partial(shards.get_async, client)
            self.look_at = partial(shards.get_async, client, command=look)
        self._is_cluster = shards.is_cluster(client)
        self._prefix = prefix
        self._old = KEPT - round(1000 * lease)  # what a lease has left that may be taken over
        self.old = str(self._old)  # the same for a script
        self._owner = uuid.uuid4().hex[:8]
        self._live: set[bytes] = set()  # the tokens of loads that this process has under way

    def tokens(self, ids: Iterable[str]) -> dict[str, str]:
        """Return a new token for each id."""
        ours = self._ours()
        return {id: ours + uuid.uuid4().hex for id in ids}

    def begin(self, tokens: Iterable[str]) -> None:
        """Say that this process has loads with these tokens under way."""
        self._live.update(map(str.encode, tokens))

    def done(self, tokens: Iterable[str]) -> None:
        """Say that the loads with these tokens have ended, however they did."""
        self._live.difference_update(map(str.encode, tokens))

    def is_orphan(self, held: bytes) -> bool:
        """Say whether a lease is this cache's own, of a load that could not give it back."""
        return held.startswith(self._ours().encode()) and held not in self._live

    def may_be_taken(self, held: bytes, left_ms: int) -> bool:
        """Say whether a lease that has so many milliseconds left may be taken over."""
        return left_ms <= self._old or self.is_orphan(held)

    def read_many(self, ids: Iterable[str]) -> Any:
        """Reply the text of each id, or None."""
        keys = [self._prefix + id for id in ids]
        if self._is_cluster:
            return self._send((key, ("GET", key)) for key in keys)
        return self._client.execute_command("MGET", *keys, NEVER_DECODE=True)

    def look(self, ids: Iterable[str]) -> Any:
        """Reply, for each id, [the text that is there, the milliseconds that it has left]."""
        return self.run(LOOK, ((id, ()) for id in ids))

    def take(self, tokens: Mapping[str, str], known: Mapping[str, str]) -> Any:
        """Reply, for each id, [1, token] if the caller may load it, else [0, what is there].

        known: The SHA-1 of texts that may be replaced whatever their age: broken or orphaned.
        """
        old = self.old
        return self.run(
            TAKE, ((id, (token, LIFE, old, known.get(id, ""))) for id, token in tokens.items())
        )

    def store(self, entries: Mapping[str, tuple[str, str, str]]) -> Any:
        """Store (token, text, ttl in ms) for each id where its token stands; reply 1 or 0."""
        return self.run(STORE, entries.items())

    def delete(self, ids: Iterable[str]) -> Any:
        """Delete what is a string at each id: GETDEL refuses other types, as DEL does not."""
        keys = [self._prefix + id for id in ids]
        return self._send((key, ("GETDEL", key)) for key in keys)

    def run(self, script: str, arguments: Iterable[tuple[str, tuple[str, ...]]]) -> Any:
        """Reply, for each id, what a script of one key does with the arguments for it."""
        keys = ((self._prefix + id, more) for id, more in arguments)
        return self._send((key, ("EVAL", script, "1", key, *more)) for key, more in keys)

    def _send(self, commands: Iterable[Command]) -> Any:
        if self._is_cluster:
            return shards.send(self._client, commands)
        pipeline = self._client.pipeline(transaction=False)
        for _, words in commands:
            pipeline.execute_command(*words, NEVER_DECODE=True)
        return pipeline.execute(raise_on_error=False)

    def _ours(self) -> str:
        """Return how the tokens of this cache in this process begin; a forked child is another."""
        return f"{LEASE}{self._owner}.{os.getpid()}."
