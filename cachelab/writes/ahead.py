"""Refresh ahead: at the end of a value's time one load, apart, while readers have what there is.

The old value stays in its key while a new one is loaded, so the lease of the core does not fit
there. An entry is one text, ``left|token|json``: how many milliseconds the key has left when a
refresh is due, a token that each store draws anew, and the value. The key lives for ttl + grace,
and what it has left comes with each read: its age is told by Redis' clock alone.

Who finds a refresh due claims it, which moves that point by `lease`: until then nobody else
refreshes, nor is a load that failed tried again. What was loaded replaces the entry where its token
still stands. Tokens are compared and not values: an id that was invalidated, loaded and stored
anew meanwhile, even with the value of before, has another.
"""

import uuid
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

import redis
import redis.asyncio

from cachelab.cache import settings as settings_of
from cachelab.cache.codec import (
    LEASE,
    LONGEST,
    NOTHING,
    Failure,
    Form,
    Mark,
    Outcome,
    decode,
    milliseconds,
    raise_first,
    value_of,
)
from cachelab.cache.core import OF_ANOTHER_FORM, Core, Load
from cachelab.cache.flights import Awaiting, Blocking, Flight, Flights, UnderWay, to_its_end
from cachelab.cache.gate import Budget, Room
from cachelab.cache.settings import Settings
from cachelab.cache.stats import Stats, Tally, log
from cachelab.clients import check_client

V = TypeVar("V")
STAYS = "readers get the old value, until it is ttl + grace old"

# 1: this refresh is the caller's, and nobody else's for so many milliseconds. What the key has left
# stays; what never expires, which no entry does, ends at once.
CLAIM = """
local held = redis.call('GET', KEYS[1]) or ''
local due, token = held:match('^(%-?%d+)|(%w+)|')
local left = redis.call('PTTL', KEYS[1])
if token ~= ARGV[1] or left > tonumber(due) then return 0 end
local later = string.format('%.0f', left - tonumber(ARGV[2]))
redis.call('SET', KEYS[1], later .. held:sub(#due + 1), 'PX', math.max(left, 1))
return 1
"""

# Put the new entry where the old one's token is, or nothing for an empty one. 1: done, perhaps by a
# first try whose reply was lost. 0: it has been invalidated or replaced.
REPLACE = """
local held = redis.call('GET', KEYS[1]) or ''
if held:match('^%-?%d+|(%w+)|') ~= ARGV[1] then return held == ARGV[2] and 1 or 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
"""


@dataclass(frozen=True)
class AheadStats(Stats):
    """What a RefreshAhead has counted: `loads` has the refreshes among them."""

    stale: int  # hits on a value older than its ttl
    refreshes: int  # loads that a refresh began
    failed: int  # of these, those that raised: the old value stays


class Entry(NamedTuple):
    """What a key holds, as a reader has it.

    Attributes:
        value: The value, or the Mark of what the key holds instead.
        token: What a refresh replaces it by, "" where there is no value.
        left: Milliseconds that the key has left.
        due: What it has left when a refresh is due.
        is_plain: Whether it is the value of a cache that keeps plain JSON.
    """

    value: Any
    token: str = ""
    left: int = 0
    due: int = -1
    is_plain: bool = False


class Ahead(Form):
    """How the values of a RefreshAhead stand in their keys."""

    def entry(self, outcome: Outcome, settings: Settings) -> tuple[str, str]:
        """Return what to store for the outcome of a load, "" for nothing, and its ttl in ms."""
        text, _ = super().entry(outcome, settings)
        if not text:
            return NOTHING
        is_absent = text == "null"
        ttl = (settings.missing_ttl if is_absent else None) or settings.ttl
        whole = min(milliseconds(ttl) + milliseconds(settings.grace), LONGEST)
        due = whole - milliseconds(ttl, 0 if is_absent else settings.jitter)
        return f"{due}|{uuid.uuid4().hex}|{text}", str(whole)

    def json_of(self, raw: Any) -> Any:
        """Return the JSON of an entry; what is none, such as a lease, as it is or as no JSON."""
        if not isinstance(raw, bytes) or raw.startswith(LEASE.encode()):
            return raw
        due, _, rest = raw.partition(b"|")
        return rest.partition(b"|")[2] if due.lstrip(b"-").isdigit() else b""


def opened(reply: Any) -> Entry:
    """Return what a read found, where Redis replied [text, milliseconds left].

    >>> opened([b'300|1f|"Ada"', 250])
    Entry(value='Ada', token='1f', left=250, due=300, is_plain=False)
    >>> opened([None, -2]).value, opened([b'"Ada"', 250]).value
    (<Mark.MISS: ...>, <Mark.CORRUPT: ...>)
    """
    if isinstance(reply, Mark):
        return Entry(reply)
    raw = reply
    try:
        raw, left = reply
        due, token, text = raw.split(b"|", 2)
        value = decode(text)
        if not isinstance(value, Mark):
            return Entry(value, token.decode(), int(left), int(due))
    except (TypeError, ValueError, AttributeError):
        pass
    value = decode(raw)
    if isinstance(value, Mark):
        return Entry(value)
    return Entry(Mark.CORRUPT, is_plain=True)


@dataclass
class _Crew:
    """The refreshes of one process, or of one event loop."""

    room: Room
    queue: deque[tuple[str, str]] = field(default_factory=deque)  # ids and tokens
    under_way: dict[str, Entry] = field(default_factory=dict)  # and queued


class _Refresher:
    """What both classes do when a refresh is due: written once, as the core is."""

    def __init__(self, core: Core):
        self.stale = Tally()
        self.refreshes = Tally()
        self.failed = Tally()
        self._core = core
        self._grace = milliseconds(core.settings.grace)
        self._lease = str(milliseconds(core.settings.lease))
        self._crews: weakref.WeakKeyDictionary[Flights, _Crew] = weakref.WeakKeyDictionary()

    @property
    def stats(self) -> AheadStats:
        return AheadStats(
            **vars(self._core.stats),
            stale=int(self.stale),
            refreshes=int(self.refreshes),
            failed=int(self.failed),
        )

    def meaning(self, id: str, reply: Any) -> Any:
        """Return the value that a read found, or a Mark; have it refreshed where that is due."""
        try:  # the usual hit passes without an Entry
            raw, left = reply
            due, _, text = raw.split(b"|", 2)
            if left > int(due) and left >= self._grace:
                value = decode(text)
                if not isinstance(value, Mark):
                    return value
        except (TypeError, ValueError, AttributeError):
            pass  # a Mark, a lease, nothing, or what is no entry
        return self._of(id, opened(reply))

    def _of(self, id: str, entry: Entry) -> Any:
        if entry.left < self._grace and not isinstance(entry.value, Mark):
            self.stale.one()
        if entry.left <= entry.due:
            self._begin(id, entry)
        elif entry.is_plain:
            self._core.counts.say("shared prefix", OF_ANOTHER_FORM)
        return entry.value

    def _begin(self, id: str, entry: Entry) -> None:
        """Have an entry refreshed, by one here; no lock: a finaliser may come in at any moment."""
        group = self._core.waiting.group()
        crew = self._crews.get(group) or self._crews.setdefault(
            group, _Crew(Room(self._core.settings.max_loads))
        )
        if crew.under_way.setdefault(id, entry) is not entry:
            return
        crew.queue.append((id, entry.token))
        place = object()
        if crew.room.enter(place, 0):
            try:
                self._core.waiting.apart(partial(self._work, group, crew, place))
            except RuntimeError:  # no thread can be had: the interpreter is shutting down
                crew.room.leave(place)
                crew.under_way.pop(id, None)

    async def _work(self, group: Flights, crew: _Crew, place: object) -> None:
        """Refresh what is queued, then leave; but for what was queued on the way out."""
        is_inside = True
        while is_inside:
            try:
                while crew.queue:
                    with suppress(IndexError):  # another was quicker
                        await self._refresh(group, crew, *crew.queue.popleft())
            finally:
                crew.room.leave(place)
            is_inside = bool(crew.queue) and crew.room.enter(place, 0)

    async def _refresh(self, group: Flights, crew: _Crew, id: str, token: str) -> None:
        core, place, budget = self._core, object(), Budget()
        room = group.room(())
        try:
            core.waiting.set_loading((UnderWay(group, {}),))  # loads within have room of their own
            if not await room.entered(place, core.settings.max_wait):
                return
            claim = {id: (token, self._lease)}
            if (await core.ask(budget, self._run, claim, CLAIM))[id] == 1:
                await self._load_and_replace(id, token, budget)
        except Exception:
            log.exception("A refresh of %r has ended without a value", id)
        finally:
            room.leave(place)
            core.waiting.set_loading(())
            crew.under_way.pop(id, None)

    async def _load_and_replace(self, id: str, token: str, budget: Budget) -> None:
        core, began = self._core, monotonic()
        self.refreshes.one()
        outcome = (await core.outcomes([id]))[id]
        seconds = monotonic() - began
        if seconds > core.settings.lease:
            core.say_slow(seconds)
        reply = None
        if isinstance(outcome, Failure):
            self.failed.one()
            kind = type(outcome.error).__name__
            core.counts.say("refresh", f"could not refresh {id!r} ({kind}): {STAYS}")
        else:
            entry = {id: (token, *core.form.entry(outcome, core.settings))}
            reply = (await core.ask(budget, self._run, entry, REPLACE))[id]
        ends = {id: core.end(Flight(id), outcome, reply)}
        if core.observers:
            core.tell(Load((id,), began, seconds, ends))

    def _run(self, entries: Mapping[str, tuple[str, ...]], script: str) -> Any:
        return self._core.leases.run(script, entries.items())


class RefreshAhead(Generic[V]):
    """Read through a cache whose values are loaded anew before their readers would have to wait.

    At the end of ttl, less the jitter, the next reader has the value loaded apart, in a thread; it
    and everybody else get the old value meanwhile. One refresh of an id runs at a time, in all
    processes; if it has not ended after `lease` seconds, or has failed, the next reader has another
    begun. While loads fail the old value is served until it is ttl + grace old, and no older; what
    nobody reads is not refreshed. A new id is loaded while its readers wait, as by `CacheAside`,
    and what its load raises reaches them.

    A hit is one round trip. Age is told by Redis' clock, not by those of processes. `invalidate`
    deletes, and wins over a refresh under way. In what else it promises it is a `CacheAside`, with
    whom it must share no prefix: each replaces what the other keeps.

    Args:
        client: A redis.Redis or RedisCluster, best from `connect`.
        load: A function of an id that returns a JSON-able value, or None if there is no such id.
            It is called in threads of this class, too.
        ttl: Seconds after which a value is to be refreshed.
        grace: Seconds that an old value may be served after that: several times lease, so that a
            load that failed can be tried again.
        jitter: A share of ttl: each refresh is due at one drawn from [ttl * (1 - jitter), ttl].
        missing_ttl: Seconds after which absence is to be refreshed; None for never remembered.
        prefix: What every key starts with; the id follows. Any text under it is the cache's own.
        lease: Seconds after which another load may begin, in another process or after a failure.
        max_loads: Loads that run at the same time, refreshes among them; more of them queue.
        max_value_bytes: Longer JSON is served and not cached.
        max_wait: Seconds that a read waits for room to load, or for another's load of its id.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        load: Callable[[str], V | None],
        ttl: float,
        grace: float,
        jitter: float = 0.1,
        missing_ttl: float | None = 30,
        prefix: str = "ahead:",
        lease: float = 2.5,
        max_loads: int = 20,
        max_value_bytes: int = 2**20,
        max_wait: float = 30,
    ):
        check_client(client, "sync", "connect")
        settings = settings_of.checked(
            load=load,
            load_many=None,
            ttl=ttl,
            jitter=jitter,
            missing_ttl=missing_ttl,
            prefix=prefix,
            lease=lease,
            max_loads=max_loads,
            max_wait=max_wait,
            max_value_bytes=max_value_bytes,
            grace=grace,
        )
        settings_of.refuse_coroutine_functions(settings)
        self._core = Core(client, settings, Blocking(settings.max_loads), Ahead())
        self._counts = self._core.counts
        self._key = self._core.key
        self._gates = self._core.gates
        self._pending = self._core.pending
        self._look = self._core.leases.look_at
        self._refresher = _Refresher(self._core)
        self._meaning = self._refresher.meaning

    def get(self, id: str) -> V | None:
        """Return the value of an id, None if it does not exist; raises as `CacheAside.get`."""
        key, budget = self._key(id), Budget()
        if self._pending:  # deletes that could not reach Redis go first
            return self.get_many([id])[id]
        value = self._meaning(id, self._gates.of(key).call(budget, self._look, key))
        if isinstance(value, Mark):
            self._counts.misses.one()
            return value_of(to_its_end(self._core.load({id: value}, budget))[id])
        self._counts.hits.one()
        return value

    def get_many(self, ids: Iterable[str]) -> dict[str, V | None]:
        """Return {id: value or None}, as `CacheAside.get_many` does."""
        look = self._core.leases.look
        values, failures = to_its_end(self._core.get_many(ids, look, self._meaning))
        raise_first(failures)
        return values

    def warm(self, ids: Iterable[str]) -> int:
        """Read ids in batches, which loads and caches what is missing; return how many exist."""
        look = self._core.leases.look
        known, failures = to_its_end(self._core.warm(ids, look, self._meaning))
        raise_first(failures)
        return known

    def invalidate(self, id: str) -> None:
        """Delete what is cached of an id, after its row has changed; see `CacheAside.invalidate`.

        What a refresh brings that began before is not stored.
        """
        to_its_end(self._core.invalidate(id))

    def observe(self, observer: Callable[[Load], object]) -> None:
        """Have a function told of each load from now on, refreshes too; hits cost no more."""
        self._core.observers += (observer,)

    @property
    def core(self) -> Core:
        """The parts that it is made of, for what writes to the same keys."""
        return self._core

    @property
    def stats(self) -> AheadStats:
        """The counts so far, as an `AheadStats` that does not change any more."""
        return self._refresher.stats


class AsyncRefreshAhead(Generic[V]):
    """The asyncio twin of `RefreshAhead`, with the same arguments: loads are awaited.

    A refresh is a task of the event loop whose reader had it begun: it goes on when that reader is
    cancelled, and ends with the loop.

    Args:
        client: A redis.asyncio.Redis or RedisCluster, best from `connect_async`.
        load: An async function of an id that returns a JSON-able value, or None.
        ttl: Seconds after which a value is to be refreshed.
        grace: Seconds that an old value may be served after that.
        jitter: A share of ttl: each refresh is due at one drawn from [ttl * (1 - jitter), ttl].
        missing_ttl: Seconds after which absence is to be refreshed; None for never remembered.
        prefix: What every key starts with; the id follows.
        lease: Seconds after which another load may begin, in another process or after a failure.
        max_loads: Loads that run at the same time, refreshes among them; more of them queue.
        max_value_bytes: Longer JSON is served and not cached.
        max_wait: Seconds that a read waits for room to load, or for another's load of its id.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        load: Callable[[str], Awaitable[V | None]],
        ttl: float,
        grace: float,
        jitter: float = 0.1,
        missing_ttl: float | None = 30,
        prefix: str = "ahead:",
        lease: float = 2.5,
        max_loads: int = 20,
        max_value_bytes: int = 2**20,
        max_wait: float = 30,
    ):
        check_client(client, "async", "connect_async")
        settings = settings_of.checked(
            load=load,
            load_many=None,
            ttl=ttl,
            jitter=jitter,
            missing_ttl=missing_ttl,
            prefix=prefix,
            lease=lease,
            max_loads=max_loads,
            max_wait=max_wait,
            max_value_bytes=max_value_bytes,
            grace=grace,
        )
        self._core = Core(client, settings, Awaiting(settings.max_loads), Ahead())
        self._counts = self._core.counts
        self._key = self._core.key
        self._gates = self._core.gates
        self._pending = self._core.pending
        self._look = self._core.leases.look_at
        self._refresher = _Refresher(self._core)
        self._meaning = self._refresher.meaning

    async def get(self, id: str) -> V | None:
        """Return the value of an id, None if it does not exist; raises as `CacheAside.get`."""
        key, budget = self._key(id), Budget()
        if self._pending:  # deletes that could not reach Redis go first
            return (await self.get_many([id]))[id]
        reply = await self._gates.of(key).call_async(budget, self._look, key)
        value = self._meaning(id, reply)
        if isinstance(value, Mark):
            self._counts.misses.one()
            return value_of((await self._core.load({id: value}, budget))[id])
        self._counts.hits.one()
        return value

    async def get_many(self, ids: Iterable[str]) -> dict[str, V | None]:
        """Return {id: value or None}, as `CacheAside.get_many` does; ids load side by side."""
        look = self._core.leases.look
        values, failures = await self._core.get_many(ids, look, self._meaning)
        raise_first(failures)
        return values

    async def warm(self, ids: Iterable[str]) -> int:
        """Read ids in batches, which loads and caches what is missing; return how many exist."""
        look = self._core.leases.look
        known, failures = await self._core.warm(ids, look, self._meaning)
        raise_first(failures)
        return known

    async def invalidate(self, id: str) -> None:
        """Delete what is cached of an id, after its row has changed; see `CacheAside.invalidate`.

        What a refresh brings that began before is not stored.
        """
        await self._core.invalidate(id)

    def observe(self, observer: Callable[[Load], object]) -> None:
        """Have a function told of each load from now on, refreshes too; hits cost no more."""
        self._core.observers += (observer,)

    @property
    def core(self) -> Core:
        """The parts that it is made of, for what writes to the same keys."""
        return self._core

    @property
    def stats(self) -> AheadStats:
        """The counts so far, as an `AheadStats` that does not change any more."""
        return self._refresher.stats
