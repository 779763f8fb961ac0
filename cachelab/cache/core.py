"""What both classes of the cache do on a miss, for many ids and on a failure: written once.

Read `Core.load` for one miss in the order in which it happens. The coroutines await whatever way
of waiting they are given (`cachelab.cache.flights`): the asynchronous class has them suspend, the
synchronous one has ways that block, and so runs them to their end in one go.
"""

import hashlib
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import filterfalse, islice
from math import inf
from time import monotonic
from types import FrameType
from typing import Any

from redis.exceptions import InvalidResponse

from cachelab import _check
from cachelab.cache.codec import (
    CALLS_LOAD,
    NOTHING,
    Failure,
    Form,
    Mark,
    Outcome,
    decode,
    decode_all,
    encode_all,
    encoded,
    signal_handlers,
    value_of,
)
from cachelab.cache.flights import (
    Flight,
    Flights,
    UnderWay,
    Waiting,
    own_load,
    wait_in_a_circle,
    waiting_for,
)
from cachelab.cache.gate import Budget, Client, Entries, Gate, Gates, only, server_of
from cachelab.cache.leases import Leases
from cachelab.cache.pending import PendingDeletes
from cachelab.cache.settings import Settings
from cachelab.cache.stats import Counts, Stats, log
from cachelab.errors import InvalidationPending, LoadsBusy, RecursiveLoad

POLL = (0.005, 0.05)  # seconds between looks at another's lease: the first, the longest
LOOK = 0.25  # seconds that a load waits for room before it looks whether its value has come
CROWD = 10  # of loads that wait for room: more of them look less often
BATCH = 500  # ids that are read at a time
SLOW_LOAD = "it outlasts its lease, and other processes may have begun another meanwhile"
OF_ANOTHER_FORM = (
    "shares its keys with a cache of another kind: each replaces what the other keeps. Give each a "
    "prefix of its own"
)
TRIES = 3  # at a lease, where what is in its place keeps changing
FINALIZES = {weakref.finalize.__call__.__code__}
Command = Callable[[Collection[str]], Any]  # on many ids
Meaning = Callable[[str, Any], Any]  # of a reply, for an id
_ByIds = dict[str, Flight]
_USUAL = {bytes, int, list, type(None)}  # what replies are, if not errors


@dataclass(frozen=True)
class Load:
    """One call of load or load_many, as an observer is told of it.

    Attributes:
        ids: The ids that it was for.
        started: When it began, on the monotonic clock.
        seconds: How long it took.
        ends: For each id "stored", "absent" (stored, or not to be remembered), "raised",
            "refused" (a stale set), "too large" or "unstored" (Redis took no lease or no value).
    """

    ids: tuple[str, ...]
    started: float
    seconds: float
    ends: Mapping[str, str]


class Core:
    """What both classes do on a miss, for many ids and on a failure: written once.

    Read `load` for one miss in the order in which it happens.

    Args:
        client: Any that `connect` or `connect_async` makes.
        settings: The arguments of the cache, checked.
        waiting: How its coroutines wait: blocking, or in an event loop.
        form: How values stand in their keys.
    """

    def __init__(
        self, client: Client, settings: Settings, waiting: Waiting, form: Form | None = None
    ):
        self.counts = Counts(f"The cache with prefix {settings.prefix!r}")
        self.gates = Gates(client, self.counts, settings.prefix)
        self.leases = Leases(client, settings.prefix, settings.lease)
        self.pending = PendingDeletes(settings.longest)
        self.observers: tuple[Callable[[Load], object], ...] = ()
        self.settings = settings
        self.waiting = waiting
        self.form = form or Form()
        _say_if_shared(self, server_of(client), settings)

    @property
    def stats(self) -> Stats:
        return self.counts.stats(self.gates.state)

    def key(self, id: str) -> str:
        if type(id) is not str or not id.isascii() or not 0 < len(id) <= 512:
            _check.identity("id", id)  # the usual id passes without
        return self.settings.prefix + id

    def _check_all(self, ids: list[str]) -> None:
        """Check many ids: the usual ones all at once, in C."""
        with suppress(TypeError):  # one of them is no text
            lengths = set(map(len, ids))
            if "".join(ids).isascii() and lengths and min(lengths) > 0 and max(lengths) <= 512:
                return
        for id in ids:
            self.key(id)

    async def get_many(
        self, ids: Iterable[str], command: Command | None = None, meaning: Meaning | None = None
    ) -> tuple[dict[str, Any], dict[str, Failure]]:
        """Return the value of each id, and the Failures of those that did not load.

        Args:
            ids: What is read.
            command: How a batch is read, if not by `Leases.read_many`.
            meaning: What a reply to it means for an id, if not what `decode` says: a value or Mark.
        """
        command = command or self.leases.read_many
        values: dict[str, Any] = dict.fromkeys(_check.several("ids", ids))
        failures: dict[str, Failure] = {}
        asked = list(values)
        self._check_all(asked)
        for at in range(0, len(asked), BATCH):
            batch, budget = asked[at : at + BATCH], Budget()
            if self.pending:
                await self.send_pending(budget, batch)
            replies = await self._replies(budget, command, batch)
            if (found := decode_all(replies)) is not None:
                self.counts.hits.add(len(batch))
                values.update(zip(batch, found, strict=True))
                continue
            marks = {}
            read = map(meaning, batch, replies) if meaning else map(decode, replies)
            for id, value in zip(batch, read, strict=True):
                if isinstance(value, Mark):
                    marks[id] = value
                else:
                    values[id] = value
            self.counts.hits.add(len(batch) - len(marks))
            self.counts.misses.add(len(marks))
            outcomes = await self.load(marks, budget)
            for id in marks:
                if isinstance(outcome := outcomes[id], Failure):
                    failures[id] = outcome
                else:
                    values[id] = value_of(outcome)
        return values, failures

    async def warm(
        self, ids: Iterable[str], command: Command | None = None, meaning: Meaning | None = None
    ) -> tuple[int, dict[str, Failure]]:
        """Return how many of ids exist, and the Failures of those that did not load."""
        rest, known = iter(_check.several("ids", ids)), 0
        failures: dict[str, Failure] = {}
        while batch := list(islice(rest, BATCH)):
            values, failed = await self.get_many(batch, command, meaning)
            failures |= failed
            known += sum(value is not None for value in values.values())
        return known, failures

    async def invalidate(self, id: str) -> None:
        self.key(id)
        self.overtake(id)
        budget, since, gone = Budget(probe=True), monotonic(), set()
        try:
            gone = await self._delete(budget, self.pending.due([id]) | {id: since})
        finally:  # when interrupted too: what may not have arrived is sent again
            if id not in gone:
                self.pending.add(id, since)
                self.waiting.resend(self._resend, lambda: bool(self.pending))
        if id not in gone:
            raise InvalidationPending(
                f"Redis did not take the delete of {id!r}: it is kept and sent again"
            )
        await self.send_pending(budget, [])

    def overtake(self, id: str) -> None:
        """See to it that no read that begins from now on joins a load here that began before."""
        for group in self.waiting.groups():
            group.invalidate(id)

    async def send_pending(self, budget: Budget, ids: Iterable[str]) -> None:
        """Send deletes that are pending, those of ids among the first."""
        while self.pending and await self._delete(budget, self.pending.due(ids)):
            pass

    async def load(self, marks: Mapping[str, Mark], budget: Budget) -> dict[str, Outcome]:
        """Load each id once: lead the loads that nobody here has begun, follow the others."""
        loading = self.waiting.loading()
        if loading and (own := own_load(loading, self.waiting.group(), marks)):
            if not self.waiting.is_interrupted(own) or _called_by() == "load":
                return dict.fromkeys(marks, Failure(_recursive(own.id)))
        outcomes: dict[str, Outcome] = {}
        too_old: dict[str, Flight] = {}
        ids = list(marks)
        while ids:
            for mine, theirs in await self._join_all(ids, marks, budget, too_old):
                for id, flight in mine.items():
                    if flight.outcome is not None:
                        outcomes[id] = flight.outcome
                for id, flight in theirs.items():
                    taken = await self._followed(flight, budget)
                    if taken is not None:
                        outcomes[id] = taken
                    too_old[id] = flight
            ids = list(filterfalse(outcomes.__contains__, ids))
        return outcomes

    async def _join_all(
        self, ids: list[str], marks: Mapping[str, Mark], budget: Budget, too_old: _ByIds
    ) -> list[tuple[_ByIds, _ByIds]]:
        """Join flights, all in one with load_many, else each by itself, with its own budget."""
        if self.settings.load_many is not None or len(ids) == 1:
            return [await self._join(ids, marks, budget, too_old)]
        return await self.waiting.each(
            self._join([id], marks, budget.again(), too_old) for id in ids
        )

    async def _join(
        self,
        ids: list[str],
        marks: Mapping[str, Mark],
        budget: Budget,
        too_old: Mapping[str, Flight],
    ) -> tuple[_ByIds, _ByIds]:
        """Lead the loads of ids that nobody here has begun; return their flights, and others'."""
        group = self.waiting.group()
        mine, theirs = group.join(ids)
        for id, old in too_old.items():
            if id in mine and (newer := old.succeeded_by(mine[id])) is not mine[id]:
                group.land(mine.pop(id))
                theirs[id] = newer
        if theirs:
            self.counts.waits.add(len(theirs))
        if mine:
            is_leased = Mark.LEASED in map(marks.get, mine)
            lead = self._lead(group, mine, budget, is_leased)
            await self.waiting.shielded(lead, partial(group.land_all, mine.values()))
        return mine, theirs

    async def _followed(self, flight: Flight, budget: Budget) -> Outcome | None:
        """Wait for another's load; return what came of it, None if it is too old to take."""
        if self.waiting.is_interrupted(flight):
            return await self._of_this_thread(flight)
        loading = self.waiting.loading()
        with waiting_for(loading, flight):
            if wait_in_a_circle(loading, flight):
                circle = f"the load of {flight.id!r} waits for a load that waits for it"
                return Failure(RecursiveLoad(circle))
            if not await self.waiting.follow(flight, self.settings.max_wait):
                if self.waiting.is_stranded(flight):
                    self.waiting.group().land(flight)
                return Failure(self._busy(flight.id, "another read's load of it has not ended"))
        if flight.outcome is None or budget.started > flight.as_of:
            return None
        if isinstance(flight.outcome, Failure):
            return flight.outcome.of_reader()
        return flight.outcome

    async def _lead(self, group: Flights, mine: _ByIds, budget: Budget, is_leased: bool) -> None:
        """Bring flights down: room, lease, load, store; or take what another process has stored."""
        before = self.waiting.loading()
        room, place = group.room(before), object()
        attempt = Attempt(group, mine, monotonic() + self.settings.max_wait, budget)
        try:
            self.waiting.set_loading((*before, UnderWay(group, mine)))
            attempt.tokens = self.leases.tokens(mine)
            attempt.held.update(attempt.tokens.values())
            self.leases.begin(attempt.held)
            while attempt.tokens:
                if is_leased:
                    await self._watch(attempt)
                while attempt.tokens:
                    pause = LOOK * max(1, room.queued / CROWD)
                    if await room.entered(place, pause):
                        break
                    await self._look(attempt)
                if ready := await self._take(attempt):
                    await self._load_and_store(ready, attempt)
                room.leave(place)
                is_leased = True  # what is left is another's
        finally:
            self.waiting.set_loading(before)
            room.leave(place)
            self.leases.done(attempt.held)

    async def _watch(self, attempt: "Attempt") -> None:
        """Wait, in no room, while all leases are others' and young; take what has come."""
        pause, left = POLL[0], attempt.budget.left
        while attempt.tokens:
            looked = monotonic()
            replies = await self.ask(attempt.budget, self.leases.look, attempt.tokens)
            for id, reply in replies.items():
                held, left_ms = reply if _is_pair(reply, int) else (reply, 0)
                text = self.form.json_of(held)
                value = decode(text)
                if not isinstance(value, Mark):
                    attempt.land(id, text.decode(), looked)
                elif value is not Mark.LEASED or self.leases.may_be_taken(held, left_ms):
                    return
            if looked > attempt.until:
                return
            attempt.budget.left = left  # waiting for a load is not Redis being slow
            await self.waiting.sleep(pause)
            pause = min(2 * pause, POLL[1])

    async def _look(self, attempt: "Attempt") -> None:
        """Look whether values have come while there was no room to load; give up in the end."""
        looked = monotonic()
        if looked > attempt.until:
            for id in list(attempt.tokens):
                attempt.land(id, Failure(self._busy(id, "there was no room for its load")), inf)
            return
        replies = await self.ask(attempt.budget.again(), self.leases.read_many, attempt.tokens)
        for id, reply in replies.items():
            text = self.form.json_of(reply)
            if not isinstance(decode(text), Mark):
                attempt.land(id, text.decode(), looked)

    async def _take(self, attempt: "Attempt") -> dict[str, Mark]:
        """Take leases; land what is there, return what the caller must load, and why."""
        looked = monotonic()
        command, ready = self.leases.take, {}
        replies = await self.ask(attempt.budget, command, attempt.tokens, attempt.known)
        for id, reply in replies.items():
            if not _is_pair(reply, bytes):
                ready[id] = reply if isinstance(reply, Mark) else Mark.UNLEASED
                continue
            may_load, held = reply
            if may_load:
                ready[id] = Mark.MISS
                if held != attempt.tokens[id].encode():
                    attempt.tokens[id] = held.decode()
                    attempt.held.add(attempt.tokens[id])
                    self.leases.begin(attempt.held)
                continue
            text = self.form.json_of(held)
            value = decode(text)
            if not isinstance(value, Mark):
                attempt.land(id, text.decode(), looked)
            elif looked > attempt.until or attempt.tries[id] > TRIES:
                ready[id] = Mark.UNLEASED
            elif value is Mark.CORRUPT or self.leases.is_orphan(held):
                attempt.known[id] = hashlib.sha1(held, usedforsecurity=False).hexdigest()
                attempt.tries[id] += 1
                if value is Mark.CORRUPT:
                    self.counts.failure("BrokenValue")
        return ready

    async def _load_and_store(self, ready: Mapping[str, Mark], attempt: "Attempt") -> None:
        tokens = {id: attempt.tokens[id] for id, mark in ready.items() if mark is Mark.MISS}
        began = monotonic()
        try:
            outcomes = await self.outcomes(list(ready))
        except BaseException:  # the leases are given back
            give_back = {id: (token, *NOTHING) for id, token in tokens.items()}
            await self.ask(attempt.budget, self.leases.store, give_back)
            raise
        sent = monotonic()
        if sent - began > self.settings.lease:
            self.say_slow(sent - began)
        if self.pending:
            await self.send_pending(attempt.budget, ready)
        entries = {}
        for id, token in tokens.items():
            outcome = outcomes[id]
            entry = NOTHING
            if not attempt.flights[id].is_invalidated:
                settings = self.settings
                if settings.expiry is not None:
                    settings = self.settings_of(id, outcome)
                entry = self.form.entry(outcome, settings)
            entries[id] = (token, *entry)
        replies = await self.ask(attempt.budget, self.leases.store, entries)
        ends = {}
        for id, outcome in outcomes.items():
            ends[id] = self.end(attempt.flights[id], outcome, replies.get(id))
            attempt.land(id, outcome, sent if ends[id] == "stored" else began)
        if self.observers:
            self.tell(Load(tuple(ready), began, sent - began, ends))

    async def outcomes(self, ids: list[str]) -> dict[str, Outcome]:
        """Call load or load_many; return, for each id, its value as JSON or what was raised."""
        self.counts.loads.one()
        one, many = self.settings.load, self.settings.load_many
        if len(ids) == 1 or many is None:
            value = await self.waiting.load(one, ids[0])
        else:
            value = await self.waiting.load(many, ids)
        if not isinstance(value, Failure):
            try:
                return {ids[0]: encoded(ids[0], value)} if len(ids) == 1 else encode_all(ids, value)
            except TypeError as error:
                value = Failure(error)
        if value.is_the_loaders_alone:
            raise value.error
        return dict.fromkeys(ids, value)

    def settings_of(self, id: str, outcome: Outcome) -> Settings:
        """Return the settings for what a load gave, where `expiry` shortens its life."""
        expiry = self.settings.expiry
        if expiry is None or isinstance(outcome, Failure):
            return self.settings
        return replace(self.settings, ttl=self._expiry(expiry, id, outcome))

    def _expiry(self, expiry: Callable[[str, str], float], id: str, text: str) -> float:
        """Return how many seconds a value may live: what a stranger's function says, or ttl."""
        try:
            seconds = _check.number("what expiry returns", expiry(id, text), above=0)
        except Exception as error:
            self.counts.say(
                "expiry", f"has an expiry that failed for {id!r}, and takes ttl: {error}"
            )
            return self.settings.ttl
        return min(seconds, self.settings.ttl)

    def say_slow(self, seconds: float) -> None:
        """Say once that a load has outlasted its lease."""
        self.counts.say("slow load", f"has a load that took {seconds:.1f} s: {SLOW_LOAD}")

    def end(self, flight: Flight, outcome: Outcome, reply: Any) -> str:
        """Return how a load ended, as `Load` has it."""
        if isinstance(outcome, Failure):
            return "raised"
        if flight.is_invalidated or reply == 0:
            self.counts.refused.one()
            return "refused"
        if reply != 1:
            return "unstored"
        if outcome == "null" and self.settings.missing_ttl is None:
            return "absent"
        return "too large" if len(outcome) > self.settings.max_value_bytes else "stored"

    async def _of_this_thread(self, own: Flight) -> Outcome | None:
        """Load for a signal handler or a finaliser that has interrupted the load of the same id.

        If the load itself asks, it would wait for itself. If nobody in this thread is loading, an
        interrupt has stranded the flight: it is ended, and the read begins anew.
        """
        above = _called_by()
        if above == "nobody":
            self.waiting.group().land(own)
            return None
        if above == "load":
            return Failure(_recursive(own.id))
        return (await self.outcomes([own.id]))[own.id]

    async def _delete(self, budget: Budget, due: Mapping[str, float]) -> set[str]:
        """Send deletes; return the ids of those that need not be sent again."""
        replies = await self.ask(budget, self.leases.delete, due, sends_pending=True)
        shut = {id for id, reply in replies.items() if reply is Mark.UNAVAILABLE}
        for gate in self.gates.split(shut):
            budget.lost.append(gate)  # nothing else goes first where they cannot
        gone = {
            id for id, reply in replies.items() if reply not in (Mark.UNAVAILABLE, Mark.UNLEASED)
        }
        self.pending.sent({id: due[id] for id in gone})
        return gone

    async def _resend(self) -> None:
        await self.send_pending(Budget(probe=True), [])

    async def ask(
        self,
        budget: Budget,
        command: Callable[..., Any],
        entries: Entries,
        *more: Any,
        sends_pending: bool = False,
    ) -> dict[str, Any]:
        """Return Redis' reply for each id, or a Mark: see `_replies`."""
        replies = await self._replies(budget, command, entries, *more, sends_pending=sends_pending)
        return dict(zip(entries, replies, strict=True))

    async def _replies(
        self,
        budget: Budget,
        command: Callable[..., Any],
        entries: Collection[str],
        *more: Any,
        sends_pending: bool = False,
    ) -> list[Any]:
        """Return Redis' replies in the order of ids: a round trip to each server that has some.

        An id whose delete is pending is not asked for: what Redis has of it may be old.
        """
        if not entries:
            return []
        gate = self.gates.only
        if gate and (sends_pending or not self.pending):
            reply = await self.waiting.call(gate, budget, command, entries, *more)
            return self._of_each(gate, budget, len(entries), reply)
        asked = entries
        if self.pending and not sends_pending:
            asked = only(entries, [id for id in entries if id not in self.pending])
        replies: dict[str, Any] = dict.fromkeys(entries, Mark.UNAVAILABLE)
        if gate and asked:
            reply = await self.waiting.call(gate, budget, command, asked, *more)
            replies.update(zip(asked, self._of_each(gate, budget, len(asked), reply), strict=True))
        if not gate:
            each = await self.waiting.call_each(self.gates, budget, command, asked, *more)
            for gate, (ids, reply) in each.items():
                replies.update(zip(ids, self._of_each(gate, budget, len(ids), reply), strict=True))
        return list(replies.values())

    def _of_each(self, gate: Gate, budget: Budget, count: int, reply: Any) -> list[Any]:
        """Return what each id got: of a reply that makes no sense, or of an error, its Mark."""
        if isinstance(reply, Mark):
            return [reply] * count
        if not isinstance(reply, list) or len(reply) != count:
            odd = InvalidResponse(f"a reply to {count} commands that is {reply!r:.40}")
            return [gate.failed(budget, odd)] * count
        if set(map(type, reply)) <= _USUAL:
            return reply
        marks: dict[Exception, Mark] = {}  # one error may have come to many
        for one in reply:
            if isinstance(one, Exception) and one not in marks:
                marks[one] = gate.failed(budget, one)
        return [marks[one] if isinstance(one, Exception) else one for one in reply]

    def _busy(self, id: str, why: str) -> LoadsBusy:
        wait = self.settings.max_wait
        return LoadsBusy(f"{id!r} was not loaded within {wait:g} s (max_wait): {why}")

    def tell(self, load: Load) -> None:
        """Tell the observers of a load."""
        for observer in self.observers:
            try:
                observer(load)
            except Exception:
                log.exception("An observer of loads failed")


@dataclass
class Attempt:
    """What one leader has under way.

    Attributes:
        until: When it gives up waiting for room, and for other processes.
        budget: Its dealings with Redis.
        tokens: Of the leases that its flights that are not down yet ask for, or have.
        held: The tokens that this process has had a load for.
        known: The SHA-1 of texts that may be replaced, broken or orphaned; see `Leases.take`.
        tries: How often such a text was met.
    """

    group: Flights
    flights: _ByIds
    until: float
    budget: Budget
    tokens: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    known: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)

    def land(self, id: str, outcome: Outcome, as_of: float) -> None:
        self.group.land(self.flights[id], outcome, as_of)
        self.tokens.pop(id, None)


def _is_pair(reply: Any, second: type) -> bool:
    """Say whether a script's reply makes sense: whoever listens there may talk nonsense."""
    return isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], second)


def _recursive(id: str) -> RecursiveLoad:
    return RecursiveLoad(
        f"the load of {id!r} reads {id!r} from the cache: it would wait for itself"
    )


def _called_by() -> str:
    """Return who, in this thread, has called the cache while it leads a load.

    "handler": a signal handler or a finaliser, in the middle of anything. "load": the load itself.
    "nobody": no load is being led.
    """
    handlers = signal_handlers() | FINALIZES
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in handlers or frame.f_code.co_name == "__del__":
            return "handler"
        if frame.f_code in CALLS_LOAD:
            return "load"
        if frame.f_code is Core._lead.__code__:
            return "handler"  # of a kind that is not known
        frame = frame.f_back
    return "nobody"


def _say_if_shared(core: Core, server: tuple[Any, ...], settings: Settings) -> None:
    """Say once that two caches of this process share their keys and load them differently."""
    name = (type(core.waiting), *server, settings.prefix)  # twins of one cache load alike
    other = _cores.setdefault(name, core)
    if type(other.form) is not type(core.form):
        core.counts.say("shared prefix", OF_ANOTHER_FORM)
    elif other.settings.load != settings.load:
        core.counts.say("shared prefix", "shares its keys with a cache that loads something else")


_cores: "weakref.WeakValueDictionary[tuple[Any, ...], Core]" = weakref.WeakValueDictionary()
