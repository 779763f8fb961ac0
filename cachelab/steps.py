"""What a cache-aside does, step by step, without the waiting: lease, load, store, follow, delete, what failure means.

Each generator ``yield``s a step, a function and its arguments, where it must wait: for Redis, for a load or for another
reader. Who runs it does the step, blocking or awaiting, and sends the outcome back. So the reasoning stands here once,
and `cachelab.aside` holds the two ways of waiting.
"""

import asyncio
import inspect
import os
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import islice
from math import inf
from time import monotonic
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ResponseError

from cachelab import _check
from cachelab.breaker import Breaker
from cachelab.commands import STORE, Commands
from cachelab.errors import InvalidationPending
from cachelab.flights import BUDGET, INSIDE, Contact, Flight, Local
from cachelab.pending import Pending
from cachelab.stats import Counts, Stats
from cachelab.values import ALONE, BROKEN, FAILED, LEASE, LEASED, MISS, Mark, decode, from_json, milliseconds

__all__ = ["STORE", "Cache"]

POLL = (0.005, 0.05)  # seconds between looks at a lease that another process holds: the first, the longest
BATCH = 500  # ids that `warm` takes at a time


class Cache(Commands):
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
            if inspect.iscoroutinefunction(function) and self._event is threading.Event:
                raise TypeError(
                    f"{name} must be a plain function: AsyncCacheAside is the cache that awaits {function!r}"
                )
        self._client, self._origin, self._origin_many = client, load, load_many
        self._ttl = _check.number("ttl", ttl, above=0)
        self._jitter = _check.number("jitter", jitter, low=0, high=1)
        self._missing_ttl = None if missing_ttl is None else _check.number("missing_ttl", missing_ttl, above=0)
        self._prefix = _check.text("prefix", prefix)
        self._lease = _check.number("lease", lease, above=0)
        self._max_loads = _check.whole("max_loads", max_loads, least=1)
        self._max_bytes = _check.whole("max_value_bytes", max_value_bytes, least=1)
        self._lock = threading.Lock()
        self._counts = Counts(f"the cache with prefix {prefix!r}")
        self._count = self._counts.count
        self._breaker = Breaker()
        self._pending = Pending(max(ttl, missing_ttl or 0) + lease)
        self._name = uuid.uuid4().hex[:8]
        self._live: set[bytes] = set()  # the tokens of leases that this process may hold
        self._locals: dict[asyncio.AbstractEventLoop | int, Local] = {}  # by event loop, or process

    @property
    def stats(self) -> Stats:
        """The counts so far, as a `Stats` that does not change any more."""
        return self._counts.stats(self._breaker.state)

    def _get_many(self, ids: Iterable[str]) -> Generator:
        keys, contact = {id: self._key(id) for id in _check.several("ids", ids)}, Contact()
        yield from self._settle(contact, keys)
        found = (yield self._ask, contact, self._read_many, list(keys.values())) if keys else []
        values = dict.fromkeys(keys, FAILED) if found is FAILED else dict(zip(keys, map(decode, found), strict=True))
        missing = [id for id, value in values.items() if isinstance(value, Mark)]
        self._count("hits", len(values) - len(missing))
        self._count("misses", len(missing))
        return values | (yield from self._fetch(missing, contact)) if missing else values

    def _warm(self, ids: Iterable[str]) -> Generator:
        known, ids = 0, iter(_check.several("ids", ids))
        size = BATCH if self._origin_many else self._at_once()  # loads one after another would outlast their leases
        while batch := list(islice(ids, size)):
            found = yield from self._get_many(batch)
            known += sum(value is not None for value in found.values())
        return known

    def _invalidate(self, id: str) -> Generator:
        self._key(id)
        with self._lock:  # no read that starts from now on joins a load that began before
            for here in self._locals.values():
                if flight := here.flights.pop(id, None):
                    flight.overtaken = True
        contact, due, reply = Contact(probe=True), self._pending.due([id]) | {id: monotonic()}, FAILED
        try:
            reply = yield self._ask, contact, self._delete, due
        finally:  # when interrupted too: what may not have arrived is sent again
            if reply is FAILED:
                self._pending.postpone(id, due[id])
        if reply is FAILED:
            raise InvalidationPending(f"Redis did not take the delete of {id!r}: it is kept and sent again")
        self._pending.settle(due)
        yield from self._settle(contact, [])

    def _settle(self, contact: Contact, ids: Iterable[str]) -> Generator:
        """Send the deletes that are pending; until theirs has gone through, ids are not looked up in Redis."""
        while self._pending and (due := self._pending.due(ids)):
            contact.probe = contact.probe or self._breaker.allows()
            if not contact.probe:  # nor does anything else go, or it would be the contact that the deletes wait for
                contact.left = 0.0
            if (yield self._ask, contact, self._delete, due) is FAILED:
                if not due.keys().isdisjoint(ids):
                    contact.left = 0.0
                return
            self._pending.settle(due)

    def _fetch(self, ids: list[str], contact: Contact) -> Generator:
        """Load each id once: lead the loads that nobody has begun, follow the others."""
        here, values = self._here(), {}
        while ids:
            mine, theirs = self._board(here, ids)
            if mine:
                yield self._apart, self._lead(here, mine, contact)
            for id, flight in (mine | theirs).items():
                if not (yield from self._follow(flight)):
                    self._forget(here, id, flight)
                    values |= _values((yield from self._outcomes(here, [[id]])))
                elif id in mine or contact.started <= flight.good_for:
                    values |= _values({id: flight.outcome})
            ids = [id for id in ids if id not in values]
        return values

    def _follow(self, flight: Flight) -> Generator:
        """Wait for a flight to land, at most a lease from the time that its leader found or got one."""
        patience = monotonic() + self._lease
        while (left := (flight.until or patience) + BUDGET - monotonic()) > 0 and not flight.done.is_set():
            yield self._wait, flight.done, left  # not all, perhaps: somebody may get a lease meanwhile
        return flight.done.is_set()

    def _board(self, here: Local, ids: Iterable[str]) -> tuple[dict[str, Flight], dict[str, Flight]]:
        """Return the flights of these ids that the caller must lead, and those that it may follow."""
        with self._lock:
            theirs = {id: here.flights[id] for id in ids if id in here.flights}
            mine = {id: Flight(self._event()) for id in ids if id not in theirs}
            here.flights |= mine
        self._count("waits", len(theirs))
        return mine, theirs

    def _lead(self, here: Local, flights: dict[str, Flight], contact: Contact) -> Generator:
        """Bring flights down: lease, load and store, or wait for the process that holds the lease."""
        tokens, pause = {id: self._own() + uuid.uuid4().hex for id in flights}, POLL[0]
        live = {token.encode() for token in tokens.values()}
        until, holders = inf, None
        self._live |= live
        try:
            while tokens:
                left, looked = contact.left, monotonic()
                replies = yield self._ask, contact, self._take, tokens
                if replies != holders:  # somebody has just taken a lease, perhaps we: patience begins anew
                    until, holders = looked + self._lease, replies
                    for id in tokens:
                        flights[id].until = until
                states = self._states(tokens, replies, late := looked >= until)
                for id, state in states.items():
                    if isinstance(state, str):
                        self._land(here, id, flights[id], state, looked)
                if broken := [id for id, state in states.items() if state is BROKEN]:
                    yield self._ask, contact, self._delete, broken
                if late:
                    yield self._ask, contact, self._expire, tokens
                if ready := {id: state for id, state in states.items() if state in (MISS, FAILED, ALONE)}:
                    yield from self._load_and_store(here, flights, ready, tokens, contact)
                tokens = {id: tokens[id] for id, state in states.items() if state in (LEASED, BROKEN)}
                if LEASED in states.values():
                    contact.left = left  # waiting for a load is not Redis being slow
                    yield self._sleep, pause
                    pause = min(2 * pause, POLL[1])
        finally:
            self._live -= live
            for id, flight in flights.items():
                if not flight.done.is_set():
                    self._land(here, id, flight)

    def _load_and_store(self, here: Local, flights: dict, ready: dict, tokens: dict, contact: Contact) -> Generator:
        leased, began = [id for id, state in ready.items() if state is MISS], monotonic()
        batches = [[id] for id in ready] if self._origin_many is None or len(ready) == 1 else [list(ready)]
        try:
            outcomes = yield from self._outcomes(here, batches)
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):  # the leases are given back
            yield self._ask, contact, self._store, {id: (tokens[id], "", 1) for id in leased}
            raise
        sent, entries = monotonic(), {id: (tokens[id], *self._entry(outcomes[id])) for id in leased}
        replies = (yield self._ask, contact, self._store, entries) if leased else FAILED
        stored = {} if replies is FAILED else dict(zip(leased, replies, strict=True))
        for id, state in ready.items():
            good_for = self._good_for(flights[id], outcomes[id], state, stored.get(id), began, sent)
            self._land(here, id, flights[id], outcomes[id], good_for)

    def _outcomes(self, here: Local, batches: list[list[str]]) -> Generator:
        """Load batches of ids, where there is room for it."""
        inside = INSIDE.get()
        outer = INSIDE.set((*inside, here))
        try:
            return (yield self._load, here.slots_at(inside.count(here)), batches)
        finally:
            INSIDE.reset(outer)

    def _states(self, tokens: Mapping[str, str], replies: Any, late: bool) -> dict[str, str | Mark]:
        """Return what each attempt to take a lease came to: MISS (it is ours), a cached text, or another mark."""
        if replies is FAILED:
            return dict.fromkeys(tokens, FAILED)
        states = {}
        for (id, token), reply in zip(tokens.items(), replies, strict=True):
            value = MISS if reply == token.encode() else decode(reply)  # ours, though the first try's reply was lost
            if isinstance(reply, ResponseError) and not str(reply).startswith("WRONGTYPE"):
                self._counts.failure(reply)
                value = ALONE
            elif value is BROKEN:
                self._counts.failure("BrokenValue")
            elif value is LEASED and reply.startswith(self._own().encode()) and reply not in self._live:
                value = BROKEN  # our own, of a load that has ended without being able to give it back
            elif value is LEASED and late:
                value = ALONE
            states[id] = value if isinstance(value, Mark) else reply.decode()
        return states

    def _own(self) -> str:
        """Return how the tokens of this cache in this process begin; a forked child is another process."""
        return f"{LEASE}{self._name}.{os.getpid()}."

    def _good_for(self, flight: Flight, outcome: Any, state: Mark, reply: Any, began: float, sent: float) -> float:
        """Return how late a read may have started to take what was loaded from ``began`` on and stored at ``sent``."""
        if isinstance(outcome, Exception):
            return inf
        if state is FAILED:  # nobody can reach Redis: one load serves this process
            return -inf if flight.overtaken else inf
        if reply == 0:
            self._count("refused")
            return -inf
        if isinstance(reply, ResponseError):
            self._counts.failure(reply)
        return sent if reply == 1 else began

    def _land(self, here: Local, id: str, flight: Flight, outcome: Any = None, good_for: float = -inf) -> None:
        """End a flight: its followers go on, who comes from now on starts another."""
        flight.outcome, flight.good_for = outcome, good_for
        self._forget(here, id, flight)
        flight.done.set()

    def _forget(self, here: Local, id: str, flight: Flight) -> None:
        with self._lock:
            if here.flights.get(id) is flight:
                del here.flights[id]

    def _entry(self, outcome: str | Exception) -> tuple[str, int]:
        """Return what to store for the outcome of a load, "" for nothing, and its ttl in milliseconds."""
        if isinstance(outcome, Exception) or len(outcome) > self._max_bytes:
            return "", 1
        if outcome == "null":
            return ("", 1) if self._missing_ttl is None else (outcome, milliseconds(self._missing_ttl))
        return outcome, milliseconds(self._ttl, self._jitter)

    def _failed(self, contact: Contact, error: Exception) -> bytes | Mark:
        """Count an answer that Redis did not give; leave it alone for the rest of this call unless it did say no."""
        if isinstance(error, ResponseError):  # it is there, and says no
            self._breaker.succeeded()
            if str(error).startswith("WRONGTYPE"):
                return b""
        else:
            self._breaker.failed()
            contact.left = 0.0
        self._counts.failure(error)
        return FAILED

    def _key(self, id: str) -> str:
        if type(id) is not str or not id.isascii() or not 0 < len(id) <= 512:  # the usual id passes quickly
            _check.identity("id", id)
        return self._prefix + id


def _values(outcomes: Mapping[str, str | Exception]) -> dict[str, Any]:
    """Return the values, or raise what a load raised."""
    for outcome in outcomes.values():
        if isinstance(outcome, Exception):
            raise outcome
    return {id: from_json(text) for id, text in outcomes.items()}
