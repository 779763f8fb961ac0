"""Next-key prefetch: what has followed a read before is loaded while its reader is elsewhere.

A predictor says what comes next, a ledger whether that may be loaded now, and what became of it. A
prefetch costs a load that nobody asked for. If it is read before its time is over it has replaced
one that would have been; if not it is wasted, and what may be wasted is a share of the loads that
readers had to wait for.
"""

import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Generic, Protocol, TypeVar

from cachelab import _check, _locks
from cachelab.cache.aside import AsyncCacheAside, CacheAside
from cachelab.cache.core import Core, Load
from cachelab.cache.flights import Flights
from cachelab.cache.gate import Room
from cachelab.cache.stats import log
from cachelab.smart.beside import OfReaders, beside, core_of, loaded_apart

V = TypeVar("V")
Id = TypeVar("Id", bound=Hashable)
MOST = 10_000_000  # contexts, streams or ids
FULL = 64  # reads after a context, when what is known of it is halved: what is newer counts more
QUEUED = 100  # prefetches that wait for one to end; more are dropped
WHOLE = 1 - 1e-9  # prefetch, of which ten times a tenth is one, though not for a float
SURE = 1.0  # seconds for which an id that was found in the cache is taken to be there still
MOST_SURE = 10_000  # of these ids, at most
MOST_WAITING = 100_000  # prefetched ids that are known, at most; those before count as wasted
SAVED = 100.0  # prefetches that may be wasted in one go, however long nothing was


class Predictor(Protocol[Id]):
    """What tells the next id of a stream of reads: `Markov`, or anything that has this method."""

    def next(self, id: Id, stream: Hashable) -> Id | None:
        """Take note of a read in a stream; return the id that is expected next, None for none."""


class Markov(Generic[Id]):
    """Predict the next id by what followed the last one, or the last two, before.

    What follows a context is counted for four ids (Misra and Gries, 1982: chance does not add up),
    and fades. Of two orders the longer context is asked first.

    Args:
        order: How many reads are the context: 1 or 2.
        confidence: An id is predicted if it followed more than this share of the times, counting
            one time more in which it did not: 0.5 takes two of two, and not one of one.
        contexts: How many are known at most, some 500 bytes each; those read longest ago go.
        streams: Streams whose last reads are known at most.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.

    >>> markov = Markov()
    >>> [markov.next(id, "ada's session") for id in "abcabcab"]
    [None, None, None, None, None, None, 'b', 'c']
    """

    def __init__(
        self,
        order: int = 1,
        confidence: float = 0.5,
        contexts: int = 100_000,
        streams: int = 10_000,
    ):
        self._order = _check.whole("order", order, least=1, most=2)
        self._confidence = _check.number("confidence", confidence, high=1)
        self._most_contexts = _check.whole("contexts", contexts, least=1, most=MOST)
        self._most_streams = _check.whole("streams", streams, least=1, most=MOST)
        self._last: OrderedDict[Hashable, tuple[Id, ...]] = OrderedDict()  # reads of each stream
        self._after: OrderedDict[tuple[Id, ...], _Followers[Id]] = OrderedDict()

    def next(self, id: Id, stream: Hashable = "") -> Id | None:
        """Take note of a read in a stream; return the id that is expected next, None for none."""
        last = self._last.pop(stream, ())
        for length in range(1, len(last) + 1):
            self._followers(last[-length:]).count(id)
        now = (*last, id)[-self._order :]
        self._last[stream] = now
        if len(self._last) > self._most_streams:
            self._last.popitem(last=False)
        for length in range(len(now), 0, -1):
            followers = self._after.get(now[-length:])
            if followers is not None and (found := followers.likely(self._confidence)) is not None:
                return found
        return None

    def _followers(self, context: tuple[Id, ...]) -> "_Followers[Id]":
        followers = self._after.pop(context, None)
        if followers is None:
            followers = _Followers()
            if len(self._after) >= self._most_contexts:
                self._after.popitem(last=False)
        self._after[context] = followers
        return followers


class _Followers(Generic[Id]):
    """What came after a context, and how often: at most four ids."""

    __slots__ = ("_counts", "_times")

    def __init__(self) -> None:
        self._counts: dict[Id, float] = {}
        self._times = 0.0

    def count(self, id: Id) -> None:
        counts = self._counts
        self._times += 1
        if id in counts or len(counts) < 4:
            counts[id] = counts.get(id, 0.0) + 1
        else:
            self._counts = {one: count - 1 for one, count in counts.items() if count > 1}
        if self._times >= FULL:
            self._times /= 2
            self._counts = {one: count / 2 for one, count in self._counts.items()}

    def likely(self, confidence: float) -> Id | None:
        if not self._counts:
            return None
        id = max(self._counts, key=self._counts.__getitem__)
        return id if self._counts[id] > confidence * (self._times + 1) else None


@dataclass(frozen=True)
class PrefetchStats:
    """What a prefetcher has done since it was made.

    Attributes:
        reads: Reads that it has seen.
        predicted: Of these, those after which an id was expected.
        prefetches: Loads that it made.
        useful: Of these, those whose id was read while it was cached.
        wasted: Of these, those whose id was not, or that brought no value; the rest wait.
        cached: Predicted ids that were cached already: a round trip at most, a second, and no load.
        over_budget: Predicted ids that were not loaded, since too much had been wasted.
        dropped: Predicted ids that were not loaded, since too many waited, Redis was away, or their
            thread, event loop or process had gone.
    """

    reads: int
    predicted: int
    prefetches: int
    useful: int
    wasted: int
    cached: int
    over_budget: int
    dropped: int


class Ledger(Generic[Id]):
    """What prefetching may still cost, and what became of each prefetch.

    Args:
        budget: Of the loads that readers waited for, the share that may be wasted besides.
        lives: Seconds after which what was prefetched has expired.
        clock: Seconds.

    >>> ledger = Ledger(budget=0.5, lives=60)
    >>> ledger.missed("a"); ledger.may("b"); ledger.missed("a"); ledger.may("b"); ledger.may("c")
    False
    True
    False
    >>> ledger.loaded("b"); ledger.read("b"); ledger.useful, ledger.may("c")
    (1, True)
    """

    def __init__(self, budget: float, lives: float, clock: Callable[[], float] = monotonic):
        self._budget = _check.number("budget", budget)
        self._lives = _check.number("lives", lives, above=0)
        self._clock = clock
        self._left = 0.0
        self._under_way: dict[Id, bool] = {}  # and whether it has been read meanwhile
        self._waiting: OrderedDict[Id, float] = OrderedDict()  # prefetched, and when it expires
        self._found: OrderedDict[Id, float] = OrderedDict()  # cached already, and when it was seen
        self.prefetches = 0
        self.useful = 0
        self.wasted = 0
        self.cached = 0
        self.over_budget = 0
        self.dropped = 0

    @property
    def under_way(self) -> list[Id]:
        """The ids for which a load is set aside that has neither been made nor spared."""
        return list(self._under_way)

    def missed(self, id: Id) -> None:
        """Count a load that a reader waited for; what was prefetched of it had gone."""
        self._left = min(SAVED, self._left + self._budget)
        self._found.pop(id, None)
        if self._waiting.pop(id, None) is not None:
            self.wasted += 1

    def read(self, id: Id) -> None:
        """Count a read that has ended: a hit, if it was not `missed` before."""
        self._expire()
        if id in self._under_way:
            self._under_way[id] = True
        elif self._waiting.pop(id, None) is not None:
            self._was_useful()

    def may(self, id: Id) -> bool:
        """Say whether an id may be prefetched now, and if so set a load aside for it."""
        if id in self._under_way or id in self._waiting:
            return False
        if id in self._found and self._clock() < self._found[id] + SURE:
            self.cached += 1
            return False
        if self._left < WHOLE:
            self.over_budget += 1
            return False
        self._left -= 1
        self._under_way[id] = False
        return True

    def loaded(self, id: Id, has_value: bool = True) -> None:
        """Say that a prefetch has loaded an id, and whether it is cached now."""
        was_read = self._under_way.pop(id, False)
        self.prefetches += 1
        if has_value and was_read:
            self._was_useful()
        elif has_value:
            self._waiting[id] = self._clock() + self._lives
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popitem(last=False)
                self.wasted += 1
        else:
            self.wasted += 1

    def spared(self, id: Id, was_cached: bool = True) -> None:
        """Say that a prefetch has not loaded: its id was there, or could not be loaded now."""
        self._under_way.pop(id, None)
        self._left = min(SAVED, self._left + 1)
        self.cached += was_cached
        self.dropped += not was_cached
        if was_cached:
            self._found.pop(id, None)
            self._found[id] = self._clock()
            if len(self._found) > MOST_SURE:
                self._found.popitem(last=False)

    def _was_useful(self) -> None:
        self.useful += 1
        self._left = min(SAVED, self._left + 1)

    def _expire(self) -> None:
        now = self._clock() if self._waiting else 0.0
        while self._waiting:
            id, until = next(iter(self._waiting.items()))
            if until > now:
                return
            if self._waiting.pop(id, None) is not None:
                self.wasted += 1


@dataclass
class _Crew:
    """The prefetches of one process, or of one event loop: those that wait, and all."""

    room: Room
    queue: deque[str] = field(default_factory=deque)
    ids: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Turn:
    """A thread's or task's work for a crew, and whether it came to its end."""

    has_ended: bool = False


class _Prefetches:
    """What both classes do after a read: written once, as the core is."""

    def __init__(
        self, core: Core, predictor: Predictor[str] | None, budget: float, at_once: int
    ) -> None:
        self._core = core
        self._predictor: Predictor[str] = Markov() if predictor is None else predictor
        if not callable(getattr(self._predictor, "next", None)):
            raise TypeError(f"predictor must have a method next, not {predictor!r}")
        self._at_once = _check.whole("at_once", at_once, least=1, most=core.settings.max_loads)
        self._ledger: Ledger[str] = Ledger(budget, core.settings.ttl)
        self._crews: weakref.WeakKeyDictionary[Flights, _Crew] = weakref.WeakKeyDictionary()
        self._lock = _locks.lock()
        self._reads = self._predicted = 0
        core.observers += (OfReaders(self._demanded),)

    @property
    def stats(self) -> PrefetchStats:
        ledger = self._ledger
        return PrefetchStats(
            reads=self._reads,
            predicted=self._predicted,
            prefetches=ledger.prefetches,
            useful=ledger.useful,
            wasted=ledger.wasted,
            cached=ledger.cached,
            over_budget=ledger.over_budget,
            dropped=ledger.dropped,
        )

    def read(self, id: str, stream: Hashable) -> None:
        """Learn from a read that has ended, and have loaded what is expected next."""
        with self._lock:
            self._reads += 1
            self._ledger.read(id)
            try:
                guess = self._predictor.next(id, stream)
                if guess is None:
                    return
                self._core.key(guess)
            except Exception as error:  # a stranger's: reads go on
                said = f"has a predictor that failed, and prefetches nothing then: {error!r}"
                self._core.counts.say("predictor", said)
                return
            self._predicted += 1
            crew = self._crew()
            if guess == id or not self._ledger.may(guess):
                return
            crew.ids.add(guess)
        self._begin(guess, crew)

    def _demanded(self, load: Load) -> None:
        with self._lock:
            for id in load.ids:
                self._ledger.missed(id)

    def _crew(self) -> _Crew:
        """Return this process' or loop's crew; a new one first drops what others left behind."""
        group = self._core.waiting.group()
        if (crew := self._crews.get(group)) is None:
            crew = self._crews[group] = _Crew(Room(self._at_once))
            living = [self._crews[one] for one in self._core.waiting.groups() if one in self._crews]
            kept = set[str]().union(*(one.ids for one in living))
            for id in self._ledger.under_way:
                if id not in kept:
                    self._ledger.spared(id, was_cached=False)
        return crew

    def _begin(self, id: str, crew: _Crew) -> None:
        """Have an id loaded apart; what cannot be begun is dropped."""
        if len(crew.queue) >= QUEUED:
            self._end(id, crew)
            return
        crew.queue.append(id)
        turn = _Turn()
        if crew.room.enter(turn, 0):
            try:
                self._core.waiting.apart(
                    partial(self._work, crew, turn), partial(self._leave, crew, turn)
                )
            except RuntimeError:  # no thread can be had: the interpreter is shutting down
                self._leave(crew, turn)

    async def _work(self, crew: _Crew, turn: _Turn) -> None:
        """Load what is queued, then leave; but for what was queued on the way out."""
        self._core.waiting.set_loading(())
        is_inside = True
        while is_inside:
            while crew.queue:
                try:
                    id = crew.queue.popleft()
                except IndexError:  # another was quicker
                    break
                await self._prefetch(id, crew)
            crew.room.leave(turn)
            is_inside = bool(crew.queue) and crew.room.enter(turn, 0)
        turn.has_ended = True

    def _leave(self, crew: _Crew, turn: _Turn) -> None:
        """Leave; who was cancelled, perhaps before it began, drops what is queued."""
        crew.room.leave(turn)
        while crew.queue and not turn.has_ended:
            try:
                self._end(crew.queue.popleft(), crew)
            except IndexError:  # another was quicker
                return

    async def _prefetch(self, id: str, crew: _Crew) -> None:
        ends: dict[str, str] = {}
        twin = beside(self._core, lambda load: ends.update(load.ends))
        can_load = False
        try:
            can_load = bool(await loaded_apart(twin, [id]))
        except Exception:
            log.exception("A prefetch of %r has ended without a value", id)
        finally:  # when cancelled, too
            self._end(id, crew, ends.get(id), was_cached=can_load)

    def _end(self, id: str, crew: _Crew, end: str | None = None, was_cached: bool = False) -> None:
        """Say what became of a prefetch: how its load ended, or why there was none."""
        with self._lock:
            crew.ids.discard(id)
            if end is not None:
                self._ledger.loaded(id, end == "stored")
            else:
                self._ledger.spared(id, was_cached)


class Prefetcher(Generic[V]):
    """Read through a cache, and have loaded apart, in threads, what is expected to be read next.

    `get` returns what the cache's does; a wrong guess costs the database a load, never a reader a
    wrong value. Where reads of several users mix, name the stream of each, such as by its session:
    what one reads tells nothing of what another reads next.

    Args:
        cache: The cache.
        predictor: What tells the next id; by default `Markov()`.
        budget: Of the loads that readers waited for, the share that may be wasted besides; what is
            useful costs nothing. 0 prefetches nothing.
        at_once: Prefetches that run at the same time, of the cache's max_loads.
        enabled: Whether it learns and prefetches; may be changed at any time.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        cache: CacheAside[V],
        predictor: Predictor[str] | None = None,
        budget: float = 0.2,
        at_once: int = 2,
        enabled: bool = True,
    ):
        core = core_of(cache, CacheAside)
        self._get = cache.get
        self._prefetches = _Prefetches(core, predictor, budget, at_once)
        self.enabled = enabled

    def get(self, id: str, stream: Hashable = "") -> V | None:
        """Return the value of an id, as the cache does; stream: whose read it is."""
        value = self._get(id)
        if self.enabled:
            self._prefetches.read(id, stream)
        return value

    @property
    def stats(self) -> PrefetchStats:
        """The counts so far."""
        return self._prefetches.stats


class AsyncPrefetcher(Generic[V]):
    """The asyncio twin of `Prefetcher`, with the same arguments: a prefetch is a task.

    Args:
        cache: The cache.
        predictor: What tells the next id; by default `Markov()`.
        budget: Of the loads that readers waited for, the share that may be wasted besides.
        at_once: Prefetches that run at the same time, in each event loop.
        enabled: Whether it learns and prefetches; may be changed at any time.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        cache: AsyncCacheAside[V],
        predictor: Predictor[str] | None = None,
        budget: float = 0.2,
        at_once: int = 2,
        enabled: bool = True,
    ):
        core = core_of(cache, AsyncCacheAside)
        self._get = cache.get
        self._prefetches = _Prefetches(core, predictor, budget, at_once)
        self.enabled = enabled

    async def get(self, id: str, stream: Hashable = "") -> V | None:
        """Return the value of an id, as the cache does; stream: whose read it is."""
        value = await self._get(id)
        if self.enabled:
            self._prefetches.read(id, stream)
        return value

    @property
    def stats(self) -> PrefetchStats:
        """The counts so far."""
        return self._prefetches.stats
