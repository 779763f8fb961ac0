"""What caches, writes and servers count, as Prometheus metrics that are read at scrape time.

    from prometheus_client import start_http_server
    from cachelab import metrics

    metrics.register(users, "users")
    start_http_server(8000, addr="127.0.0.1")

A hit executes the same code with and without `register`: its counts are those that `stats` reads,
and loads are counted by an observer, where they happen. A scrape asks Redis only for what stands
there, the streams of writes and the INFO of servers, and waits for all of it together `WAIT`
seconds at most: what a process counts itself is always in the answer.

Each process counts for itself, and is a target of its own for Prometheus: a port each, sums by
``sum by (cache) (rate(cachelab_reads_total[5m]))``. A forked child goes on from what its parent had
counted, which rates do not see; the thread that answers scrapes is to be started in the child. The
multiprocess mode of prometheus_client is not for collectors such as this one.
"""

import asyncio
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio
from redis._parsers.helpers import parse_info

from cachelab import _check, _locks
from cachelab._extras import need
from cachelab.cache import AsyncCacheAside, CacheAside
from cachelab.cache.aside import Load
from cachelab.cache.stats import Tally, log
from cachelab.clients import check_client, deadlines, is_ours, shards
from cachelab.writes.ahead import AsyncRefreshAhead, RefreshAhead
from cachelab.writes.behind import AsyncWriteBehind, WriteBehind
from cachelab.writes.stream import Stream
from cachelab.writes.worker import Worker

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

T = TypeVar("T")
Labels = tuple[str, ...]
Sample = tuple[str, Labels, Any]  # a family, the values of its labels, its value

WAIT = 0.5  # seconds that a scrape waits for Redis, for all that it asks together
ANSWER = 0.4  # of these, that a server has: what others said is read after that
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds

# How a load ends, for each id: as `Load.ends` has it, in one word.
OUTCOMES = {
    "stored": "stored",
    "absent": "absent",
    "raised": "failed",
    "refused": "refused",
    "too large": "too_large",
    "unstored": "unstored",
}
# What is there from the first scrape on, so that the first failure of a kind is an increase.
KINDS = (
    *("AuthenticationError", "ConnectionError", "NoPermissionError", "OutOfMemoryError"),
    *("ReadOnlyError", "TimeoutError"),
)

C, W, S = ("cache",), ("writes",), ("server",)
# Of each family its type, its labels and its help; that of a counter ends in _total where it is
# shown.
FAMILIES: dict[str, tuple[str, Labels, str]] = {
    "cachelab_reads": (
        *("counter", (*C, "outcome")),
        "Reads by outcome, hit or miss; a remembered absence is a hit.",
    ),
    "cachelab_loads": (
        *("counter", (*C, "outcome")),
        "Ids that were loaded since the cache was registered, by how each ended.",
    ),
    "cachelab_load_seconds": (
        *("histogram", C),
        "How long calls of load and load_many took since the cache was registered.",
    ),
    "cachelab_loads_running": ("gauge", C, "Ids that are being loaded, or wait to be, here."),
    "cachelab_waits": ("counter", C, "Reads that waited for the load of another read."),
    "cachelab_stale_sets_refused": (
        *("counter", C),
        "Loads that were not stored, since an invalidate or another store overtook them.",
    ),
    "cachelab_errors": (
        *("counter", (*C, "kind")),
        "Answers that Redis did not give, by the name of the error.",
    ),
    "cachelab_breaker_open": (
        *("gauge", (*C, *S)),
        "Whether the breaker of a server, or of a shard of a cluster, is open.",
    ),
    "cachelab_pending_deletes": ("gauge", C, "Deletes that have not reached Redis yet."),
    "cachelab_stale_reads": ("counter", C, "Hits on a value that was older than its ttl."),
    "cachelab_refreshes": ("counter", C, "Loads that a refresh ahead of time began."),
    "cachelab_refreshes_failed": ("counter", C, "Refreshes whose load raised."),
    "cachelab_writes_put": (
        *("counter", (*W, "outcome")),
        "Writes that were put here: acknowledged, refused, uncertain or failed.",
    ),
    "cachelab_writes_waiting": ("gauge", W, "Writes in the stream that have not been applied."),
    "cachelab_writes_lag_seconds": (
        *("gauge", W),
        "Age of the oldest write that has not been applied, by the clock of Redis; 0 without one.",
    ),
    "cachelab_writes_set_aside": ("gauge", W, "Writes that were set aside with their error."),
    "cachelab_writes_applied": ("counter", W, "Writes whose rows this worker has written."),
    "cachelab_writes_superseded": ("counter", W, "Writes that a newer one of the row preceded."),
    "cachelab_writes_repeated": ("counter", W, "Writes that had been applied before."),
    "cachelab_writes_failed": ("counter", W, "Tries of a write that raised."),
    "cachelab_server_up": ("gauge", S, "Whether the server answered INFO in time."),
    "cachelab_server_timed_out": ("gauge", S, "Whether it gave no answer in time, and no error."),
    "cachelab_server_uptime_in_seconds": ("gauge", S, "Seconds since the server started."),
    "cachelab_server_memory_used_bytes": ("gauge", S, "Memory that the server has allocated."),
    "cachelab_server_memory_max_bytes": ("gauge", S, "maxmemory of the server; 0 for no limit."),
    "cachelab_server_connected_clients": ("gauge", S, "Connections of clients."),
    "cachelab_server_config_maxclients": ("gauge", S, "Connections that the server takes at most."),
    "cachelab_server_rejected_connections": ("counter", S, "Connections refused for maxclients."),
    "cachelab_server_commands_processed": ("counter", S, "Commands that were executed."),
    "cachelab_server_keyspace_hits": ("counter", S, "Look-ups of keys that were there."),
    "cachelab_server_keyspace_misses": ("counter", S, "Look-ups of keys that were not."),
    "cachelab_server_evicted_keys": ("counter", S, "Keys that were dropped for want of memory."),
    "cachelab_server_expired_keys": ("counter", S, "Keys whose time was over."),
    "cachelab_server_errors": ("counter", (*S, "err"), "Errors that were replied, by first word."),
    "cachelab_server_connected_slaves": ("gauge", S, "Replicas that are connected."),
    "cachelab_server_master_link_up": ("gauge", S, "Of a replica, whether it hears its primary."),
    "cachelab_server_rdb_last_save_timestamp_seconds": ("gauge", S, "When a snapshot was saved."),
    "cachelab_server_rdb_last_bgsave_status": ("gauge", S, "Whether the last snapshot went well."),
}
# What INFO calls the numbers of the families that have no other name there.
INFO = {
    "uptime_in_seconds": "uptime_in_seconds",
    "used_memory": "memory_used_bytes",
    "maxmemory": "memory_max_bytes",
    "connected_clients": "connected_clients",
    "maxclients": "config_maxclients",
    "rejected_connections": "rejected_connections",
    "total_commands_processed": "commands_processed",
    "keyspace_hits": "keyspace_hits",
    "keyspace_misses": "keyspace_misses",
    "evicted_keys": "evicted_keys",
    "expired_keys": "expired_keys",
    "connected_slaves": "connected_slaves",
    "rdb_last_save_time": "rdb_last_save_timestamp_seconds",
}
STATES = {
    "master_link_status": "master_link_up",
    "rdb_last_bgsave_status": "rdb_last_bgsave_status",
}

# {writes that no group, or not every group, has applied; milliseconds since the oldest of them was
# put; writes set aside}. Nothing is written. What a group has not read it tells as its lag, if it
# can: else all that it does not have under way counts.
STATE = """
local aside = redis.call('XLEN', KEYS[2])
local length = redis.call('XLEN', KEYS[1])
if length == 0 then return {0, 0, aside} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local waiting, oldest = 0, now
local function seen(count, id)
  waiting = math.max(waiting, count)
  if id then oldest = math.min(oldest, tonumber(id:match('%d+'))) end
end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if #groups == 0 then
  seen(length, redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1])
end
for _, group in ipairs(groups) do
  local facts = {}
  for at = 1, #group, 2 do facts[group[at]] = group[at + 1] end
  local held = redis.call('XPENDING', KEYS[1], facts['name'])
  local next = redis.call('XRANGE', KEYS[1], '(' .. facts['last-delivered-id'], '+', 'COUNT', 1)[1]
  local unread = next and (facts['lag'] or length - held[1]) or 0
  seen(held[1] + unread, held[2] or next and next[1])
end
return {waiting, now - oldest, aside}
"""


def register(what: T, name: str, registry: "CollectorRegistry | None" = None) -> T:
    """Have a cache, its writes or a server in what a registry of Prometheus metrics shows.

    Only a weak reference is kept: what nobody holds any more leaves by itself, and its series end.
    One that takes the name later begins at 0, as after a restart, which rates know. Counts go back
    to when a cache was made, but for loads by outcome and their seconds, which begin here.

    Args:
        what: A CacheAside, a RefreshAhead, a WriteBehind, or an asyncio twin of them; a Worker; the
            Stream of writes alone; a redis.Redis or RedisCluster, whose INFO is shown. Writes
            through an asyncio client that `connect_async` did not make show no state of the stream.
        name: The value of the label cache, writes or server; of a cluster's nodes it is their
            address. A worker may have the name of the writes that it applies.
        registry: Where it is shown; prometheus_client.REGISTRY by default.

    Returns:
        What was given.

    Raises:
        MissingExtra: prometheus-client is not installed.
        TypeError: It is nothing of these kinds.
        ValueError: The name is taken, or ``what`` is registered already.
    """
    _collector(registry).add(what, _check.identity("name", name))
    return what


def unregister(what: object, registry: "CollectorRegistry | None" = None) -> None:
    """Take out what was registered; its series end, and its name is free.

    Raises:
        MissingExtra: prometheus-client is not installed.
        ValueError: It is not registered.
    """
    _collector(registry).remove(what)


class _Loads:
    """Counts loads as they end; what it counts with may be interrupted anywhere."""

    def __init__(self) -> None:
        self._ends = {end: Tally() for end in OUTCOMES}
        self._buckets = [Tally() for _ in (*BUCKETS, "+Inf")]
        self._seconds = 0.0
        self._lock = _locks.lock()

    def __call__(self, load: Load) -> None:
        for end in load.ends.values():
            self._ends[end].one()
        self._buckets[bisect_left(BUCKETS, load.seconds)].one()
        with self._lock:
            self._seconds += load.seconds

    def samples(self, name: str) -> Iterator[Sample]:
        for end, word in OUTCOMES.items():
            yield "cachelab_loads", (name, word), int(self._ends[end])
        until = map(str, (*BUCKETS, "+Inf"))
        counts = accumulate(map(int, self._buckets))
        yield (
            "cachelab_load_seconds",
            (name,),
            (list(zip(until, counts, strict=True)), self._seconds),
        )


class _Source:
    """What is shown of one thing that is registered.

    Attributes:
        kind: Names of one kind are told apart.
        of: A weak reference to the thing.
        troubles: Why Redis has told nothing of late; each kind of error is said once.
    """

    kind = "cache"

    def __init__(self, what: Any, name: str):
        self.name = name
        self.of = weakref.ref(what)
        self.troubles: set[type[Exception]] = set()

    def counts(self, what: Any) -> Iterator[Sample]:
        """Yield what the process has counted itself."""
        return iter(())

    def client(self, what: Any) -> Any:
        """Return what Redis is asked with, None where it need not be."""
        return None

    def ask(self, what: Any) -> Any:
        """Ask Redis; called in a thread."""

    def told(self, what: Any, reply: Any) -> Iterator[Sample]:
        """Yield what Redis has told: an exception if it would not, None if not in time."""
        return iter(())

    def leave(self, what: Any) -> None:
        """Stop counting."""


class _Cache(_Source):
    def __init__(self, what: Any, name: str):
        super().__init__(what, name)
        self._loads = _Loads()
        what.observe(self._loads)

    def counts(self, what: Any) -> Iterator[Sample]:
        stats, core, one = what.stats, what.core, (self.name,)
        yield "cachelab_reads", (self.name, "hit"), stats.hits
        yield "cachelab_reads", (self.name, "miss"), stats.misses
        yield from self._loads.samples(self.name)
        running = sum(group.under_way for group in core.waiting.groups())
        yield "cachelab_loads_running", one, running
        yield "cachelab_waits", one, stats.waits
        yield "cachelab_stale_sets_refused", one, stats.refused
        for kind, count in (dict.fromkeys(KINDS, 0) | dict(stats.errors_by_kind)).items():
            yield "cachelab_errors", (self.name, kind), count
        for server, state in core.gates.states.items():
            yield "cachelab_breaker_open", (self.name, server), state == "open"
        yield "cachelab_pending_deletes", one, len(core.pending)

    def leave(self, what: Any) -> None:
        what.core.observers = tuple(one for one in what.core.observers if one is not self._loads)


class _Ahead(_Cache):
    def counts(self, what: Any) -> Iterator[Sample]:
        yield from super().counts(what)
        stats, one = what.stats, (self.name,)
        yield "cachelab_stale_reads", one, stats.stale
        yield "cachelab_refreshes", one, stats.refreshes
        yield "cachelab_refreshes_failed", one, stats.failed


class _Stream(_Source):
    kind = "writes"

    def client(self, what: Any) -> Any:
        client = _stream_of(what).client
        is_sync = isinstance(client, (redis.Redis, redis.RedisCluster))
        return client if is_sync or is_ours(client) else None

    def ask(self, what: Any) -> Any:
        stream = _stream_of(what)
        came = stream.send(("EVAL", STATE, "2", stream.stream, stream.aside))
        if not isinstance(came, list):
            came = asyncio.run(_closed(came, stream.client))
        return came[0]

    def told(self, what: Any, reply: Any) -> Iterator[Sample]:
        if isinstance(reply, list) and list(map(type, reply)) == [int, int, int]:
            waiting, lag_ms, aside = reply
            yield "cachelab_writes_waiting", (self.name,), waiting
            yield "cachelab_writes_lag_seconds", (self.name,), max(0, lag_ms) / 1000
            yield "cachelab_writes_set_aside", (self.name,), aside


class _Behind(_Stream):
    def counts(self, what: Any) -> Iterator[Sample]:
        for outcome, count in vars(what.stats).items():
            yield "cachelab_writes_put", (self.name, outcome), count


class _Worker(_Stream):
    kind = "worker"

    def counts(self, what: Any) -> Iterator[Sample]:
        stats = what.stats
        for fate in ("applied", "superseded", "repeated", "failed"):
            yield f"cachelab_writes_{fate}", (self.name,), getattr(stats, fate)


class _Server(_Source):
    """What INFO says. A node that a cluster's client has given up is asked after all the same."""

    kind = "server"

    def __init__(self, what: Any, name: str):
        check_client(what, "sync", "connect")
        super().__init__(what, name)
        self._nodes: dict[str, Any] = {}  # of a cluster, by address

    def client(self, what: Any) -> Any:
        return what

    def ask(self, what: Any) -> Any:
        if not shards.is_cluster(what):
            return {self.name: what.info()}
        if not what.nodes_manager.slots_cache:  # nobody has used it: whom there is to ask?
            shards.exchange(what, [(0, ("PING",))])
        now = {node.name: node for node in what.get_nodes()}
        nodes = self._nodes | now
        asked = [(node, words) for words in (("INFO",), _LISTED) for node in nodes.values()]
        came = shards.exchange(what, asked)  # all at once
        told = dict(zip(nodes, came[: len(nodes)], strict=True))
        listed = b"\n".join(reply for reply in came[len(nodes) :] if isinstance(reply, bytes))
        gone = {name for name in nodes.keys() - now if listed and not _is_listed(name, listed)}
        self._nodes = {name: node for name, node in nodes.items() if name not in gone}
        return {name: told[name] for name in self._nodes}

    def told(self, what: Any, reply: Any) -> Iterator[Sample]:
        for server, info in _each(reply, self._nodes or [self.name]).items():
            if isinstance(info, bytes):
                info = parse_info(info)  # type: ignore[no-untyped-call]
            is_up = isinstance(info, dict)
            yield "cachelab_server_up", (server,), is_up
            # None: it is still being asked
            yield "cachelab_server_timed_out", (server,), isinstance(info, _LATE)
            yield from _of_info(server, info if is_up else {})


_LISTED = ("CLUSTER", "NODES")
_LATE = (redis.TimeoutError, type(None))

KINDS_OF: tuple[tuple[tuple[type, ...], type[_Source]], ...] = (
    ((CacheAside, AsyncCacheAside), _Cache),
    ((RefreshAhead, AsyncRefreshAhead), _Ahead),
    ((WriteBehind, AsyncWriteBehind), _Behind),
    ((Worker,), _Worker),
    ((Stream,), _Stream),
    ((redis.Redis, redis.RedisCluster), _Server),
)


class _Asking:
    """The thread that asks one Redis, and what it has been told."""

    def __init__(self, sources: Mapping[_Source, Any], until: float):
        self.replies: dict[_Source, Any] = {}
        self.thread = threading.Thread(target=self._ask, args=(sources, until), daemon=True)
        self.thread.start()

    def _ask(self, sources: Mapping[_Source, Any], until: float) -> None:
        deadlines.DEADLINE.until = until
        for source, what in sources.items():
            if monotonic() > until:
                break
            try:
                self.replies[source] = source.ask(what)
                source.troubles.clear()
            except Exception as error:  # whoever listens there may talk nonsense
                self.replies[source] = error
                if type(error) not in source.troubles:
                    source.troubles.add(type(error))
                    log.warning("%r tells nothing to a scrape: %s", source.name, error)


class _Collector:
    """What one registry asks at a scrape."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str], _Source] = {}
        self._asking: dict[tuple[str, int], _Asking] = {}
        self._lock = _locks.lock()

    def add(self, what: Any, name: str) -> None:
        make = next((make for kinds, make in KINDS_OF if isinstance(what, kinds)), None)
        if make is None:
            raise TypeError(
                "what is registered must be a cache, writes, a worker or a client, not a "
                f"{type(what).__module__}.{type(what).__name__}"
            )
        with self._lock:
            for (kind, taken), source in self._sources.copy().items():
                owner = source.of()
                if owner is what:
                    raise ValueError(f"this {type(what).__name__} is registered as {taken!r}")
                if owner is not None and (kind, taken) == (make.kind, name):
                    raise ValueError(
                        f"the name {name!r} is taken by another {type(owner).__name__}: choose "
                        "another name, or unregister that one first"
                    )
            self._sources[make.kind, name] = make(what, name)

    def remove(self, what: object) -> None:
        for key, source in self._sources.copy().items():
            if source.of() is what:
                source.leave(what)
                self._sources.pop(key, None)
                return
        raise ValueError(f"this {type(what).__name__} is not registered")

    def describe(self) -> "Iterable[Metric]":
        return _families({}).values()

    def collect(self) -> "Iterable[Metric]":
        found: dict[str, dict[Labels, Any]] = {}
        here: dict[_Source, Any] = {}
        for key, source in self._sources.copy().items():
            if (what := source.of()) is None:
                self._sources.pop(key, None)
                continue
            here[source] = what
            _note(found, source.counts(what))
        replies = self._replies(here)
        for source, what in here.items():
            _note(found, source.told(what, replies.get(source)))
        return [family for family in _families(found).values() if family.samples]

    def _replies(self, sources: Mapping[_Source, Any]) -> dict[_Source, Any]:
        """Ask Redis: each client in a thread of its own, all within `WAIT`.

        Where one is asked already, by another scrape or since a while ago, its answer counts here.
        """
        until = monotonic() + WAIT
        replies: dict[_Source, Any] = {}
        by_client: dict[tuple[str, int], dict[_Source, Any]] = {}
        for source, what in sources.items():
            if (client := source.client(what)) is not None:
                by_client.setdefault((source.kind, id(client)), {})[source] = what
        asking = {}
        for number, asked in by_client.items():
            under_way = self._asking.get(number)
            if under_way is None or not under_way.thread.is_alive():
                under_way = self._asking[number] = _Asking(asked, until - WAIT + ANSWER)
            asking[number] = under_way
        for number, one in asking.items():
            one.thread.join(max(0.0, until - monotonic()))
            replies |= one.replies.copy()
            if not one.thread.is_alive():
                self._asking.pop(number, None)
        return replies


def _stream_of(what: Any) -> Stream:
    return what if isinstance(what, Stream) else what.stream


async def _closed(reply: Any, client: Any) -> Any:
    """Await a reply in a loop of its own, then close what was opened for it."""
    try:
        async with asyncio.timeout(WAIT):
            return await reply
    finally:
        pool = getattr(client, "connection_pool", None)
        await (pool.disconnect() if pool else client.aclose())


def _each(reply: Any, names: Iterable[str]) -> Mapping[str, Any]:
    return reply if isinstance(reply, dict) else dict.fromkeys(names, reply)


def _is_listed(name: str, listed: bytes) -> bool:
    """Say whether nodes of a cluster have one of that address among them."""
    host, _, port = name.encode().rpartition(b":")
    return any(host in line and b":%b@" % port in line for line in listed.splitlines())


def _of_info(server: str, info: Mapping[str, Any]) -> Iterator[Sample]:
    for field, family in INFO.items():
        if isinstance(value := info.get(field), (int, float)):
            yield f"cachelab_server_{family}", (server,), value
    for field, family in STATES.items():
        if field in info:
            yield f"cachelab_server_{family}", (server,), info[field] in ("up", "ok")
    for field, value in info.items():
        if field.startswith("errorstat_") and isinstance(value, dict):
            err = field.removeprefix("errorstat_")
            yield "cachelab_server_errors", (server, err), value["count"]


def _note(found: dict[str, dict[Labels, Any]], samples: Iterator[Sample]) -> None:
    for family, labels, value in samples:
        found.setdefault(family, {}).setdefault(labels, value)  # a series once


def _families(found: Mapping[str, Mapping[Labels, Any]]) -> "dict[str, Metric]":
    from prometheus_client import metrics_core

    kinds: dict[str, Callable[..., Any]] = {
        "counter": metrics_core.CounterMetricFamily,
        "gauge": metrics_core.GaugeMetricFamily,
        "histogram": metrics_core.HistogramMetricFamily,
    }
    made: dict[str, Metric] = {}
    for name, (kind, labels, told) in FAMILIES.items():
        family = made[name] = kinds[kind](name, told, labels=labels)
        for values, value in found.get(name, {}).items():
            family.add_metric(values, *(value if kind == "histogram" else (float(value),)))
    return made


def _collector(registry: "CollectorRegistry | None") -> _Collector:
    need("cachelab.metrics", "metrics")
    from prometheus_client import REGISTRY

    registry = REGISTRY if registry is None else registry
    with _making:
        if registry not in _collectors:
            made = _Collector()
            registry.register(made)
            _collectors[registry] = made
    return _collectors[registry]


_collectors: "weakref.WeakKeyDictionary[CollectorRegistry, _Collector]"
_collectors = weakref.WeakKeyDictionary()
_making = _locks.lock()
