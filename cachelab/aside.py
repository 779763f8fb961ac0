"""Cache-aside that holds: one round trip for a hit, one load for a miss, no stale value left, Redis never in the way.

A value is JSON under its own key; `null` says that the id is known to be absent. While a value is being loaded its key holds
``lease:<token>`` instead, and only the holder of that lease may store: the lease of Nishtala et al., "Scaling Memcache at
Facebook", NSDI 2013.

What a cache does is written once, in `_Cache`, as generators: each ``yield`` is a place where it waits, for Redis, for a load
or for another reader. The two public classes stand below it, side by side, and say how to wait: by blocking, or by awaiting.
"""

import asyncio
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from time import monotonic, sleep
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError

from cachelab import _check
from cachelab.breaker import Breaker
from cachelab.client import UNTIL
from cachelab.errors import InvalidationPending
from cachelab.values import ALONE, BROKEN, FAILED, LEASE, LEASED, MISS, Mark, decode, encode, from_json, milliseconds

BUDGET = 0.45  # seconds that Redis may add to one call
POLL = (0.005, 0.05)  # seconds between looks at a lease that another process holds: the first, the longest
BATCH = 500  # ids that `warm` takes at a time

# The one script: put the value where the lease is, or nothing for an empty one. 1: done, perhaps by a first try whose reply
# was lost. 0: the lease has gone, so the load has been overtaken.
STORE = """
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then return held == ARGV[2] and 1 or 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""

log = logging.getLogger("cachelab")


@dataclass(frozen=True)
class Stats:
    """What a cache has counted since it was made; each read is exactly one hit or one miss."""

    hits: int
    misses: int
    loads: int  # calls of load or load_many
    waits: int  # reads that waited for another read's load
    refused: int  # stores refused because the load had been overtaken
    errors_by_kind: Mapping[str, int]  # answers that Redis did not give, by the error's name
    breaker: str  # "closed" or "open"

    @property
    def errors(self) -> int:
        """How many answers Redis did not give."""
        return sum(self.errors_by_kind.values())

    @property
    def hit_rate(self) -> float | None:
        """hits / (hits + misses), None before the first read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None


class _Contact:
    """One call's dealings with Redis: when the call began, and the seconds it may still spend there."""

    __slots__ = ("left", "probe", "started")

    def __init__(self, probe: bool = False):
        self.started, self.left, self.probe = monotonic(), BUDGET, probe


class _Flight:
    """One load under way in this process."""

    def __init__(self, done: threading.Event | asyncio.Event):
        self.done = done
        self.outcome: str | Exception | None = None  # JSON, so that each reader gets a value of its own
        self.good_for = -inf  # reads that started later than this must read again
        self.overtaken = False  # by an invalidate of this process


@dataclass
class _Local:
    """What belongs to one event loop, or to all threads together: room for loads, and flights."""

    slots: threading.Semaphore | asyncio.Semaphore
    flights: dict[str, _Flight] = field(default_factory=dict)


class _Cache:
    """What both classes do, but for the waiting."""

    _event: type

    def __init__(
        self,
        client: redis.Redis | redis.asyncio.Redis,
        load: Callable[[str], Any],
        ttl: float,
        jitter: float = 0.1,
        missing_ttl: float | None = 30,
        prefix: str = "",
        load_many: Callable[[list[str]], Any] | None = None,
        lease: float = 10.0,
        max_loads: int = 20,
        max_value_bytes: int = 2**20,
    ):
        for name, function in (("load", load), ("load_many", load_many)):
            if not callable(function) and (function is not None or name == "load"):
                raise TypeError(f"{name} must be a function, not {function!r}")
        self._client, self._origin, self._origin_many = client, load, load_many
        self._ttl = _check.number("ttl", ttl, above=0)
        self._jitter = _check.number("jitter", jitter, low=0, high=1)
        self._missing_ttl = None if missing_ttl is None else _check.number("missing_ttl", missing_ttl, above=0)
        self._prefix = _check.text("prefix", prefix)
        self._lease = _check.number("lease", lease, above=0)
        self._max_loads = _check.whole("max_loads", max_loads, least=1)
        self._max_bytes = _check.whole("max_value_bytes", max_value_bytes, least=1)
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("hits", "misses", "loads", "waits", "refused"), 0)
        self._errors: Counter[str] = Counter()
        self._breaker = Breaker()
        self._pending: dict[str, object] = {}  # ids whose delete has not gone through
        self._locals: dict[asyncio.AbstractEventLoop | None, _Local] = {}

    @property
    def stats(self) -> Stats:
        """The counts so far, as a `Stats` that does not change any more."""
        with self._lock:
            return Stats(**self._counts, errors_by_kind=dict(self._errors), breaker=self._breaker.state)

    def _get_many(self, ids: Iterable[str]) -> Generator:
        keys, contact = {id: self._key(id) for id in _several(ids)}, _Contact()
        yield from self._settle(contact, keys)
        found = (yield self._ask, contact, self._read_many, list(keys.values())) if keys else []
        values = dict.fromkeys(keys, FAILED) if found is FAILED else dict(zip(keys, map(decode, found), strict=True))
        missing = [id for id, value in values.items() if isinstance(value, Mark)]
        self._count("hits", len(values) - len(missing))
        self._count("misses", len(missing))
        return values | (yield from self._fetch(missing, contact)) if missing else values

    def _warm(self, ids: Iterable[str]) -> Generator:
        known, ids = 0, iter(_several(ids))
        while batch := list(islice(ids, BATCH)):
            found = yield from self._get_many(batch)
            known += sum(value is not None for value in found.values())
        return known

    def _invalidate(self, id: str) -> Generator:
        self._key(id)
        with self._lock:  # no read that starts from now on joins a load that began before
            for here in self._locals.values():
                if flight := here.flights.pop(id, None):
                    flight.overtaken = True
        pending, reply = {**self._pending, id: object()}, FAILED
        try:
            reply = yield self._ask, _Contact(probe=True), self._delete, pending
        finally:  # when interrupted too: what may not have arrived is sent again
            if reply is FAILED:
                self._pending[id] = pending[id]
        if reply is FAILED:
            raise InvalidationPending(f"Redis could not be reached to delete {id!r}: the delete is kept and sent again")
        self._settled(pending)

    def _settle(self, contact: _Contact, ids: Iterable[str]) -> Generator:
        """Send the deletes that are pending; until they go through, those ids are not looked up in Redis."""
        if pending := dict(self._pending):
            if (yield self._ask, contact, self._delete, pending) is not FAILED:
                self._settled(pending)
            elif not pending.keys().isdisjoint(ids):
                contact.left = 0.0

    def _settled(self, pending: Mapping[str, object]) -> None:
        with self._lock:
            for id, stamp in pending.items():
                if self._pending.get(id) is stamp:  # not invalidated once more meanwhile
                    del self._pending[id]

    def _fetch(self, ids: list[str], contact: _Contact) -> Generator:
        """Load each id once: lead the loads that nobody has begun, follow the others."""
        here, until, values = self._here(), monotonic() + self._lease, {}
        while ids:
            mine, theirs = self._board(here, ids)
            if mine:
                yield self._apart, self._lead(here, mine, contact, until)
            for id, flight in (mine | theirs).items():
                if not (yield self._wait, flight.done, max(0.0, until - monotonic())):  # a lease long is long enough
                    values |= _values((yield self._load, here, [[id]]))
                elif id in mine or contact.started <= flight.good_for:
                    values |= _values({id: flight.outcome})
            ids = [id for id in ids if id not in values]
        return values

    def _board(self, here: _Local, ids: Iterable[str]) -> tuple[dict[str, _Flight], dict[str, _Flight]]:
        """Return the flights of these ids that the caller must lead, and those that it may follow."""
        with self._lock:
            theirs = {id: here.flights[id] for id in ids if id in here.flights}
            mine = {id: _Flight(self._event()) for id in ids if id not in theirs}
            here.flights |= mine
            self._counts["waits"] += len(theirs)
        return mine, theirs

    def _lead(self, here: _Local, flights: dict[str, _Flight], contact: _Contact, until: float) -> Generator:
        """Bring flights down: lease, load and store, or wait for the process that holds the lease."""
        tokens, pause = {id: f"{LEASE}{uuid.uuid4().hex}" for id in flights}, POLL[0]
        try:
            while tokens:
                left, looked = contact.left, monotonic()
                replies = yield self._ask, contact, self._take, tokens
                states = self._states(tokens, replies, late=looked >= until)
                for id, state in states.items():
                    if isinstance(state, str):
                        self._land(here, id, flights[id], state, looked)
                if broken := [id for id, state in states.items() if state is BROKEN]:
                    yield self._ask, contact, self._delete, broken
                if ready := {id: state for id, state in states.items() if state in (MISS, FAILED, ALONE)}:
                    yield from self._load_and_store(here, flights, ready, tokens, contact)
                tokens = {id: tokens[id] for id, state in states.items() if state in (LEASED, BROKEN)}
                if LEASED in states.values():
                    contact.left = left  # waiting for a load is not Redis being slow
                    yield self._sleep, pause
                    pause = min(2 * pause, POLL[1])
        finally:
            for id, flight in flights.items():
                if not flight.done.is_set():
                    self._land(here, id, flight)

    def _load_and_store(self, here: _Local, flights: dict, ready: dict, tokens: dict, contact: _Contact) -> Generator:
        leased, outcomes, began = [id for id, state in ready.items() if state is MISS], {}, monotonic()
        try:
            batches = [[id] for id in ready] if self._origin_many is None or len(ready) == 1 else [list(ready)]
            outcomes = yield self._load, here, batches
        finally:  # when interrupted too: the leases are given back
            entries = {id: (tokens[id], *self._entry(outcomes.get(id, ""))) for id in leased}
            sent = monotonic()
            replies = (yield self._ask, contact, self._store, entries) if leased else FAILED
        stored = {} if replies is FAILED else dict(zip(leased, replies, strict=True))
        for id, state in ready.items():
            good_for = self._good_for(flights[id], outcomes[id], state, stored.get(id), began, sent)
            self._land(here, id, flights[id], outcomes[id], good_for)

    def _states(self, tokens: Mapping[str, str], replies: Any, late: bool) -> dict[str, str | Mark]:
        """Return what each attempt to take a lease came to: MISS (it is ours), a cached text, or another mark."""
        if replies is FAILED:
            return dict.fromkeys(tokens, FAILED)
        states = {}
        for (id, token), reply in zip(tokens.items(), replies, strict=True):
            value = MISS if reply == token.encode() else decode(reply)  # ours, though the first try's reply was lost
            if isinstance(reply, ResponseError) and not str(reply).startswith("WRONGTYPE"):
                self._note(reply)
                value = ALONE
            elif value is BROKEN:
                self._note("BrokenValue")
            states[id] = reply.decode() if not isinstance(value, Mark) else ALONE if late and value is LEASED else value
        return states

    def _good_for(self, flight: _Flight, outcome: Any, state: Mark, reply: Any, began: float, sent: float) -> float:
        """Return how late a read may have started to take an outcome loaded from ``began`` on and stored at ``sent``."""
        if isinstance(outcome, Exception):
            return inf
        if state is FAILED:  # nobody can reach Redis: one load serves this process
            return -inf if flight.overtaken else inf
        if reply == 0:
            self._count("refused")
            return -inf
        return sent if reply == 1 else began

    def _land(self, here: _Local, id: str, flight: _Flight, outcome: Any = None, good_for: float = -inf) -> None:
        """End a flight: its followers go on, who comes from now on starts another."""
        flight.outcome, flight.good_for = outcome, good_for
        with self._lock:
            if here.flights.get(id) is flight:
                del here.flights[id]
        flight.done.set()

    def _entry(self, outcome: str | Exception) -> tuple[str, int]:
        """Return what to store for the outcome of a load, "" for nothing, and its ttl in milliseconds."""
        if isinstance(outcome, Exception) or len(outcome) > self._max_bytes:
            return "", 1
        if outcome == "null":
            return ("", 1) if self._missing_ttl is None else (outcome, milliseconds(self._missing_ttl))
        return outcome, milliseconds(self._ttl, self._jitter)

    def _failed(self, contact: _Contact, error: Exception) -> bytes | Mark:
        """Count an answer that Redis did not give, and leave it alone for the rest of this call."""
        if isinstance(error, ResponseError):  # it is there, and says no
            self._breaker.succeeded()
            if str(error).startswith("WRONGTYPE"):
                return b""
        else:
            self._breaker.failed()
        self._note(error)
        contact.left = 0.0
        return FAILED

    def _note(self, error: Exception | str) -> None:
        """Count a failure; log it once if only a change of configuration can mend it."""
        kind = error if isinstance(error, str) else type(error).__name__
        with self._lock:
            first = kind not in self._errors
            self._errors[kind] += 1
        refused = isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError))
        if first and (refused or "DB index" in str(error)):
            log.error("the cache with prefix %r goes on without Redis, which refuses it: %s", self._prefix, error)

    def _count(self, name: str, by: int = 1) -> None:
        with self._lock:
            self._counts[name] += by

    def _key(self, id: str) -> str:
        if type(id) is not str or not id.isascii() or not 0 < len(id) <= 512:  # the usual id passes quickly
            _check.identity("id", id)
        return self._prefix + id

    def _read(self, key: str):
        return self._client.execute_command("GET", key, NEVER_DECODE=True)

    def _read_many(self, keys: list[str]):
        return self._client.execute_command("MGET", *keys, NEVER_DECODE=True)

    def _delete(self, ids: Iterable[str]):
        return self._client.delete(*(self._prefix + id for id in ids))

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


class CacheAside(_Cache):
    """Read through a cache: `get` returns the cached value, or loads it once and caches it.

    client: a redis.Redis, best from `connect`, whose timeouts keep the promise that Redis adds at most half a second.
    load: a function of an id that returns a JSON-able value, or None for an id that does not exist. load_many: one of a
    list of ids that returns a mapping; ids it leaves out do not exist. ttl: seconds a value lives, drawn from
    [ttl * (1 - jitter), ttl]. missing_ttl: seconds that absence is remembered, None for not at all. prefix: what every key
    starts with. lease: seconds that a load may take before others stop waiting for it. max_loads: loads that run at once.
    max_value_bytes: longer JSON is served and not cached. Making a cache does no I/O.
    """

    _event = threading.Event

    def __init__(self, client: redis.Redis, *args, **kwargs):
        super().__init__(_client(client, redis.Redis, "connect"), *args, **kwargs)
        self._locals[None] = _Local(threading.BoundedSemaphore(self._max_loads))

    def get(self, id: str) -> Any:
        """Return the value of id, None if it does not exist; whatever ``load`` raises is raised here."""
        key, contact = self._key(id), _Contact()
        if self._pending:
            self._run(self._settle(contact, [id]))
        value = decode(self._ask(contact, self._read, key))
        if isinstance(value, Mark):
            self._count("misses")
            return self._run(self._fetch([id], contact))[id]
        self._count("hits")
        return value

    def get_many(self, ids: Iterable[str]) -> dict[str, Any]:
        """Return {id: value or None}: one round trip for hits; for misses one to lease, one load_many, one to store."""
        return self._run(self._get_many(ids))

    def warm(self, ids: Iterable[str]) -> int:
        """Read ids in batches, which loads and caches what is missing; return how many of them exist."""
        return self._run(self._warm(ids))

    def invalidate(self, id: str) -> None:
        """Delete what is cached of id, after its database row has changed.

        Raises InvalidationPending if Redis cannot be reached: this process then serves the id from the database until the
        delete, sent again with the next contact, has gone through. Other processes may serve the old value until then, at
        most for ttl.
        """
        self._run(self._invalidate(id))

    def _ask(self, contact: _Contact, command: Callable, *args) -> Any:
        """Return what Redis replies to a command, or FAILED."""
        if contact.left <= 0 or not (contact.probe or self._breaker.allows()):
            return FAILED
        began = monotonic()
        limit = UNTIL.set(began + contact.left)
        try:
            reply = command(*args)
        except Exception as error:  # whatever nonsense the other end talks, the caller gets a value
            return self._failed(contact, error)
        finally:
            UNTIL.reset(limit)
        self._breaker.succeeded()
        contact.left -= monotonic() - began
        return reply

    def _load(self, here: _Local, batches: list[list[str]]) -> dict[str, str | Exception]:
        """Return, for each id, what its load gave as JSON, or what it raised."""
        outcomes = [self._load_batch(here, ids) for ids in batches]
        return {id: outcome for batch in outcomes for id, outcome in batch.items()}

    def _load_batch(self, here: _Local, ids: list[str]) -> dict[str, str | Exception]:
        with here.slots:
            self._count("loads")
            try:
                values = {ids[0]: self._origin(ids[0])} if len(ids) == 1 else self._origin_many(ids)
                return {id: encode(id, values.get(id)) for id in ids}
            except Exception as error:
                return dict.fromkeys(ids, error)

    def _run(self, steps: Generator) -> Any:
        """Do what each step asks for, and send it the outcome."""
        reply = error = None
        while True:
            try:
                step, *args = steps.throw(error) if error else steps.send(reply)
            except StopIteration as end:
                return end.value
            try:
                reply, error = step(*args), None
            except BaseException as raised:
                error = raised

    def _apart(self, steps: Generator) -> None:
        self._run(steps)

    def _here(self) -> _Local:
        return self._locals[None]

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)

    def _sleep(self, seconds: float) -> None:
        sleep(seconds)


class AsyncCacheAside(_Cache):
    """The asyncio twin of `CacheAside`, with the same arguments: ``load`` and ``load_many`` are awaited.

    One object may serve one event loop after another. A load goes on when the reader that began it is cancelled, for the
    sake of those that wait for it.
    """

    _event = asyncio.Event

    def __init__(self, client: redis.asyncio.Redis, *args, **kwargs):
        super().__init__(_client(client, redis.asyncio.Redis, "connect_async"), *args, **kwargs)
        self._tasks: set[asyncio.Task] = set()

    async def get(self, id: str) -> Any:
        """Return the value of id, None if it does not exist; whatever ``load`` raises is raised here."""
        key, contact = self._key(id), _Contact()
        if self._pending:
            await self._run(self._settle(contact, [id]))
        value = decode(await self._ask(contact, self._read, key))
        if isinstance(value, Mark):
            self._count("misses")
            return (await self._run(self._fetch([id], contact)))[id]
        self._count("hits")
        return value

    async def get_many(self, ids: Iterable[str]) -> dict[str, Any]:
        """Return {id: value or None}: one round trip for hits; for misses one to lease, one load_many, one to store."""
        return await self._run(self._get_many(ids))

    async def warm(self, ids: Iterable[str]) -> int:
        """Read ids in batches, which loads and caches what is missing; return how many of them exist."""
        return await self._run(self._warm(ids))

    async def invalidate(self, id: str) -> None:
        """Delete what is cached of id, after its database row has changed; raises as `CacheAside.invalidate` does."""
        await self._run(self._invalidate(id))

    async def _ask(self, contact: _Contact, command: Callable, *args) -> Any:
        """Return what Redis replies to a command, or FAILED."""
        if contact.left <= 0 or not (contact.probe or self._breaker.allows()):
            return FAILED
        began = monotonic()
        limit = UNTIL.set(began + contact.left)
        try:
            reply = await command(*args)
        except Exception as error:  # whatever nonsense the other end talks, the caller gets a value
            return self._failed(contact, error)
        finally:
            UNTIL.reset(limit)
        self._breaker.succeeded()
        contact.left -= monotonic() - began
        return reply

    async def _load(self, here: _Local, batches: list[list[str]]) -> dict[str, str | Exception]:
        """Return, for each id, what its load gave as JSON, or what it raised."""
        outcomes = await asyncio.gather(*(self._load_batch(here, ids) for ids in batches))
        return {id: outcome for batch in outcomes for id, outcome in batch.items()}

    async def _load_batch(self, here: _Local, ids: list[str]) -> dict[str, str | Exception]:
        async with here.slots:
            self._count("loads")
            try:
                values = {ids[0]: await self._origin(ids[0])} if len(ids) == 1 else await self._origin_many(ids)
                return {id: encode(id, values.get(id)) for id in ids}
            except Exception as error:
                return dict.fromkeys(ids, error)

    async def _run(self, steps: Generator) -> Any:
        """Do what each step asks for, and send it the outcome."""
        reply = error = None
        while True:
            try:
                step, *args = steps.throw(error) if error else steps.send(reply)
            except StopIteration as end:
                return end.value
            try:
                reply, error = await step(*args), None
            except BaseException as raised:
                error = raised

    async def _apart(self, steps: Generator) -> None:
        task = asyncio.create_task(self._run(steps))
        self._tasks.add(task)  # the loop itself keeps no strong reference
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    def _here(self) -> _Local:
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._locals:
                for closed in [known for known in self._locals if known.is_closed()]:
                    del self._locals[closed]
                self._locals[loop] = _Local(asyncio.BoundedSemaphore(self._max_loads))
            return self._locals[loop]

    async def _wait(self, event: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await event.wait()
        except TimeoutError:
            return False

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _client(client: Any, kind: type, maker: str) -> Any:
    if not isinstance(client, kind):
        name = f"{type(client).__module__}.{type(client).__name__}"
        raise TypeError(f"client must be what {maker}() returns, a {kind.__module__}.{kind.__name__}, not a {name}")
    return client


def _several(ids: Iterable[str]) -> Iterable[str]:
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"ids must be several ids, such as a list, not the single {ids!r}")
    return ids


def _values(outcomes: Mapping[str, str | Exception]) -> dict[str, Any]:
    """Return the values, or raise what a load raised."""
    for outcome in outcomes.values():
        if isinstance(outcome, Exception):
            raise outcome
    return {id: from_json(text) for id, text in outcomes.items()}
