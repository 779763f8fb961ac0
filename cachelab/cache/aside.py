"""Cache-aside that holds: one round trip for a hit, one load for a miss, Redis never in the way.

A value is JSON under its own key; `null` says that the id is known to be absent. While a value is
being loaded its key holds a lease instead (`cachelab.cache.leases`), and what was loaded is stored
only where that lease still stands. The two classes stand side by side and read alike; what they
do on a miss, for many ids and on a failure is written once, in `cachelab.cache.core`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

import redis
import redis.asyncio

from cachelab.cache import settings as settings_of
from cachelab.cache.codec import Mark, decode, raise_first, value_of
from cachelab.cache.core import Core, Load
from cachelab.cache.flights import Awaiting, Blocking, to_its_end
from cachelab.cache.gate import Budget
from cachelab.cache.stats import Stats
from cachelab.clients import check_client

__all__ = ["AsyncCacheAside", "CacheAside", "Load", "Stats"]

V = TypeVar("V")


class CacheAside(Generic[V]):
    """Read through a cache: `get` returns the cached value, or loads it once and caches it.

    Making a cache does no I/O and never fails because Redis is away. A load may read other ids
    from the same cache; it should time out by itself, and must read the newest committed row: from
    a replica that lags, an old value may be cached after `invalidate`.

    Behind Sentinel and on a cluster the primaries are asked alone, each with a breaker of its own;
    what another node holds by now is asked for there. A replica that takes over may lack what its
    primary had just acknowledged, and a primary that was replaced, but lives, still serves who has
    not heard of it: what `invalidate` deleted may then be read again, for its ttl at most. Soon it
    writes nothing more if it has min-replicas-to-write 1 and min-replicas-max-lag of some seconds.
    Where a shard is lost whole the others hit on if the cluster has cluster-require-full-coverage
    no.

    Args:
        client: A redis.Redis or RedisCluster, best from `connect`, whose timeouts keep the promise
            that Redis adds at most half a second to a call.
        load: A function of an id that returns a JSON-able value, or None if there is no such id.
        ttl: Seconds that a value lives at most.
        jitter: A share of ttl: each value's is drawn uniformly from [ttl * (1 - jitter), ttl].
        missing_ttl: Seconds that absence is remembered; None for not at all.
        prefix: What every key starts with; the id follows. Any text under it is the cache's own.
        load_many: A function of a list of ids that returns a mapping of ids to values, without
            those that do not exist. Without it ids load one by one, two more round trips each.
        lease: Seconds after which another process begins a load that has not ended, since its
            holder may be dead. The first of them to end is stored.
        max_loads: Loads that run at the same time; more of them queue.
        max_value_bytes: Longer JSON is served and not cached. It is counted as it is stored: a
            letter outside of ASCII takes six bytes, or twelve.
        max_wait: Seconds that a read waits for room to load, or for another's load of its id.
        expiry: A function of an id and its value as JSON text, called after each load, that returns
            the seconds for which this value may live; ttl where it raises. More than ttl is ttl.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        load: Callable[[str], V | None],
        ttl: float,
        jitter: float = 0.1,
        missing_ttl: float | None = 30,
        prefix: str = "cache:",
        load_many: Callable[[list[str]], Mapping[str, V | None]] | None = None,
        lease: float = 2.5,
        max_loads: int = 20,
        max_value_bytes: int = 2**20,
        max_wait: float = 30,
        expiry: Callable[[str, str], float] | None = None,
    ):
        check_client(client, "sync", "connect")
        settings = settings_of.checked(
            load=load,
            load_many=load_many,
            ttl=ttl,
            jitter=jitter,
            missing_ttl=missing_ttl,
            prefix=prefix,
            lease=lease,
            max_loads=max_loads,
            max_wait=max_wait,
            max_value_bytes=max_value_bytes,
            expiry=expiry,
        )
        settings_of.refuse_coroutine_functions(settings)
        self._core = Core(client, settings, Blocking(settings.max_loads))
        self._counts = self._core.counts
        self._key = self._core.key
        self._gates = self._core.gates
        self._pending = self._core.pending
        self._read = self._core.leases.read

    def get(self, id: str) -> V | None:
        """Return the value of an id, None if it does not exist.

        Raises:
            LoadsBusy: There was no room to load, or another's load did not end, within max_wait.
            RecursiveLoad: The load of this id reads this id.
            Exception: Whatever load raises.
        """
        key, budget = self._key(id), Budget()
        if self._pending:  # deletes that could not reach Redis go first
            return self.get_many([id])[id]
        value = decode(self._gates.of(key).call(budget, self._read, key))
        if isinstance(value, Mark):
            self._counts.misses.one()
            return value_of(to_its_end(self._core.load({id: value}, budget))[id])
        self._counts.hits.one()
        return value

    def get_many(self, ids: Iterable[str]) -> dict[str, V | None]:
        """Return {id: value or None}.

        For each 500 ids one round trip for the hits, on a cluster to all its nodes at once; for the
        misses one to lease, one load_many and one to store. Raises as `get` does, when everything
        else has been loaded and stored.
        """
        values, failures = to_its_end(self._core.get_many(ids))
        raise_first(failures)
        return values

    def warm(self, ids: Iterable[str]) -> int:
        """Read ids in batches, which loads and caches what is missing; return how many exist.

        Raises as `get` does, when everything else has been loaded and stored.
        """
        known, failures = to_its_end(self._core.warm(ids))
        raise_first(failures)
        return known

    def invalidate(self, id: str) -> None:
        """Delete what is cached of an id, after its database row has changed.

        A read that begins after it has returned never gives an older value, as long as the primary
        is not replaced; a load that began before is not stored.

        Raises:
            InvalidationPending: Redis cannot be reached, or refuses. The delete is kept: this
                process serves the id from the database until the delete, which is sent again and
                again, has gone through or what it was for has expired. Other processes may serve
                the old value until then, at most for ttl.
        """
        to_its_end(self._core.invalidate(id))

    def observe(self, observer: Callable[["Load"], object]) -> None:
        """Have a function told of each load from now on, where it happens; hits cost no more."""
        self._core.observers += (observer,)

    @property
    def core(self) -> Core:
        """The parts that it is made of, for what writes to the same keys."""
        return self._core

    @property
    def stats(self) -> Stats:
        """The counts so far, as a `Stats` that does not change any more."""
        return self._core.stats


class AsyncCacheAside(Generic[V]):
    """The asyncio twin of `CacheAside`, with the same arguments: loads are awaited.

    One object may serve several event loops; max_loads is then for each of them. A load goes on
    when the reader that began it is cancelled, for the sake of those that wait for it.

    Args:
        client: A redis.asyncio.Redis or RedisCluster, best from `connect_async`.
        load: An async function of an id that returns a JSON-able value, or None.
        ttl: Seconds that a value lives at most.
        jitter: A share of ttl: each value's is drawn uniformly from [ttl * (1 - jitter), ttl].
        missing_ttl: Seconds that absence is remembered; None for not at all.
        prefix: What every key starts with; the id follows.
        load_many: An async function of a list of ids that returns a mapping of ids to values.
        lease: Seconds after which another process begins a load that has not ended.
        max_loads: Loads that run at the same time; more of them queue.
        max_value_bytes: Longer JSON is served and not cached.
        max_wait: Seconds that a read waits for room to load, or for another's load of its id.
        expiry: A plain function of an id and its value as JSON text, see `CacheAside`.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        load: Callable[[str], Awaitable[V | None]],
        ttl: float,
        jitter: float = 0.1,
        missing_ttl: float | None = 30,
        prefix: str = "cache:",
        load_many: Callable[[list[str]], Awaitable[Mapping[str, V | None]]] | None = None,
        lease: float = 2.5,
        max_loads: int = 20,
        max_value_bytes: int = 2**20,
        max_wait: float = 30,
        expiry: Callable[[str, str], float] | None = None,
    ):
        check_client(client, "async", "connect_async")
        settings = settings_of.checked(
            load=load,
            load_many=load_many,
            ttl=ttl,
            jitter=jitter,
            missing_ttl=missing_ttl,
            prefix=prefix,
            lease=lease,
            max_loads=max_loads,
            max_wait=max_wait,
            max_value_bytes=max_value_bytes,
            expiry=expiry,
        )
        self._core = Core(client, settings, Awaiting(settings.max_loads))
        self._counts = self._core.counts
        self._key = self._core.key
        self._gates = self._core.gates
        self._pending = self._core.pending
        self._read = self._core.leases.read

    async def get(self, id: str) -> V | None:
        """Return the value of an id, None if it does not exist; raises as `CacheAside.get`."""
        key, budget = self._key(id), Budget()
        if self._pending:  # deletes that could not reach Redis go first
            return (await self.get_many([id]))[id]
        value = decode(await self._gates.of(key).call_async(budget, self._read, key))
        if isinstance(value, Mark):
            self._counts.misses.one()
            return value_of((await self._core.load({id: value}, budget))[id])
        self._counts.hits.one()
        return value

    async def get_many(self, ids: Iterable[str]) -> dict[str, V | None]:
        """Return {id: value or None}, as `CacheAside.get_many` does; ids load side by side."""
        values, failures = await self._core.get_many(ids)
        raise_first(failures)
        return values

    async def warm(self, ids: Iterable[str]) -> int:
        """Read ids in batches, which loads and caches what is missing; return how many exist."""
        known, failures = await self._core.warm(ids)
        raise_first(failures)
        return known

    async def invalidate(self, id: str) -> None:
        """Delete what is cached of an id, after its row has changed; see `CacheAside.invalidate`.

        A delete that is kept is sent again while the event loop of this call lives.
        """
        await self._core.invalidate(id)

    def observe(self, observer: Callable[["Load"], object]) -> None:
        """Have a function told of each load from now on, where it happens; hits cost no more."""
        self._core.observers += (observer,)

    @property
    def core(self) -> Core:
        """The parts that it is made of, for what writes to the same keys."""
        return self._core

    @property
    def stats(self) -> Stats:
        """The counts so far, as a `Stats` that does not change any more."""
        return self._core.stats
