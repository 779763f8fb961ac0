"""Warming: a bounded log of what is read often, and loading that before it is asked for.

The log counts in this process, a read being worth half as much after half_life, by the algorithm of
Misra and Gries, "Finding repeated elements", 1982, in batches: of `size` ids at most, and any id
that has more than one of size + 1 reads is among them.
"""

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from cachelab import _check
from cachelab.cache.aside import AsyncCacheAside, CacheAside
from cachelab.cache.core import BATCH, Core, Load
from cachelab.cache.flights import to_its_end
from cachelab.smart.beside import beside, core_of, is_shut, loaded_apart

T = TypeVar("T")
MOST_IDS = 10_000_000
MOST_RATE = 1_000_000.0  # loads a second
A_SECOND = 4  # batches that are loaded in one
HEAVIEST = 2.0**500  # of a read, before all counts are written anew
LARGEST = 690.0  # whose exponential a float still holds


@dataclass(frozen=True)
class LogStats:
    """What a log has counted since it was made."""

    reads: int
    ids: int  # that it knows now
    warmed: int  # loads that warming made
    useful: int  # of these, those whose id was read since
    wasted: int  # of these, those whose id was not, so far or before it was loaded again


@dataclass(frozen=True)
class Warmed:
    """What a warming did.

    Attributes:
        asked: Ids that it came to; what cannot be an id is passed over.
        loaded: Of these, those that were loaded and cached; the others were there, or are absent.
        failed: Of these, those whose load raised, or could not be cached.
        seconds: How long it took.
        ended: "all", or why not all were loaded: "time" or "failures", in a batch of nothing else.
    """

    asked: int
    loaded: int
    failed: int
    seconds: float
    ended: str


class PopularityLog:
    """Count what is read, by hand or around a cache's `get`; memory is bounded, older reads fade.

    A read costs half a microsecond. No lock: threads that count at the same moment may lose a read.

        log = PopularityLog()
        get = log.watching(users.get)
        ...
        warm(users, log, count=1000, rate=200)

    Args:
        size: Ids that it keeps for sure; it holds twice as many at most.
        half_life: Seconds after which a read is worth half.
        counts: What another log had counted, by its `counts`, such as before a restart.
        enabled: Whether reads are counted; may be changed at any time.
        clock: Seconds.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        size: int = 10_000,
        half_life: float = 3600.0,
        counts: Mapping[str, float] | None = None,
        enabled: bool = True,
        clock: Callable[[], float] = monotonic,
    ):
        self._size = _check.whole("size", size, least=1, most=MOST_IDS)
        self._per_second = math.log(2) / _check.number("half_life", half_life, above=0)
        self.enabled = enabled
        self._clock = clock
        self._began = clock()
        before: dict[str, float] = {}
        for id, count in (counts or {}).items():
            name = _check.identity("an id of counts", id)
            before[name] = _check.number(f"the count of {name!r}", count)
        # Counts, and the moment of which a read is worth 1: of other moments they mean nothing.
        self._since = before, self._began
        self._reads = 0
        self._waiting: dict[str, None] = {}  # ids that warming loaded and nobody has read since
        self._warmed = 0
        self._useful = 0
        self._prune()

    def read(self, id: str) -> None:
        """Count a read of an id."""
        if not self.enabled:
            return
        self._reads += 1
        counts, epoch = self._since
        weight = self._weight(epoch)
        counts[id] = counts.get(id, 0.0) + weight
        if self._waiting and id in self._waiting:
            self._waiting.pop(id, None)
            self._useful += 1
        if len(counts) > 2 * self._size or weight > HEAVIEST:
            self._prune()

    def watching(self, get: Callable[[str], T]) -> Callable[[str], T]:
        """Return a `get` that counts each read; one that is to be awaited is so still."""

        def watched(id: str) -> T:
            self.read(id)
            return get(id)

        return watched

    def top(self, count: int) -> list[str]:
        """Return the ids that are read most, the most popular first."""
        count = _check.whole("count", count, least=0)
        known = list(self._since[0].items())
        return [id for id, _ in heapq.nlargest(count, known, key=lambda one: one[1])]

    def reads(self, id: str) -> float:
        """Return how many reads of an id it remembers, each worth less with its age."""
        counts, epoch = self._since
        return counts.get(id, 0.0) / self._weight(epoch)

    def rate(self, id: str) -> float:
        """Return how many times a second an id is read of late, since the log began at most."""
        faded = -math.expm1(-(self._clock() - self._began) * self._per_second)
        return self.reads(id) * self._per_second / max(faded, self._per_second)

    @property
    def counts(self) -> dict[str, float]:
        """What it remembers, the most popular first, such as to keep it as JSON."""
        counts, epoch = self._since
        weight = self._weight(epoch)
        known = sorted(list(counts.items()), key=lambda one: -one[1])
        return {id: count / weight for id, count in known[: self._size]}

    @property
    def stats(self) -> LogStats:
        """The counts so far."""
        wasted = self._warmed - self._useful
        return LogStats(self._reads, len(self._since[0]), self._warmed, self._useful, wasted)

    def note_warmed(self, id: str) -> None:
        """Count an id that was loaded because it is popular."""
        self._warmed += 1
        self._waiting.pop(id, None)
        self._waiting[id] = None
        if len(self._waiting) > 2 * self._size:
            self._waiting.pop(next(iter(self._waiting)), None)

    def _weight(self, epoch: float) -> float:
        """Return what a read is worth now, where one of the epoch is worth 1."""
        return math.exp(min((self._clock() - epoch) * self._per_second, LARGEST))

    def _prune(self) -> None:
        """Write all counts anew as of now; take from each what the first one below size has."""
        counts, epoch = self._since
        weight, now = self._weight(epoch), self._clock()
        known = list(counts.items())
        least = 0.0
        if len(known) > self._size:
            largest = heapq.nlargest(self._size + 1, (count for _, count in known))
            least = largest[-1]
        self._since = {id: (count - least) / weight for id, count in known if count > least}, now


def warm(
    cache: CacheAside[Any],
    log: PopularityLog,
    count: int = 1000,
    rate: float = 100.0,
    within: float | None = None,
    spread: float = 0.5,
) -> Warmed:
    """Load what a log has as most popular and the cache lacks, the most popular first.

    Readers go on meanwhile, and wait for no load but their own id's. What another process loads is
    not loaded again. A failing database is left alone after the first batch.

    Args:
        cache: The cache that reads would load into.
        log: Of what was read.
        count: Ids at most; 0 loads nothing.
        rate: Loads a second at most, so that the database is not asked by a crowd after a restart;
            at most max_loads of the cache run at once.
        within: Seconds after which no more is loaded; None for however long it takes.
        spread: A share of ttl, for the cache's jitter: each value's is drawn uniformly from
            [ttl * (1 - spread), ttl], so that what is loaded together does not expire together.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """
    core = core_of(cache, CacheAside)
    return to_its_end(_warmed(core, log, count, rate, within, spread))


async def warm_async(
    cache: AsyncCacheAside[Any],
    log: PopularityLog,
    count: int = 1000,
    rate: float = 100.0,
    within: float | None = None,
    spread: float = 0.5,
) -> Warmed:
    """Load what a log has as most popular, as `warm` does, with its arguments."""
    core = core_of(cache, AsyncCacheAside)
    return await _warmed(core, log, count, rate, within, spread)


async def _warmed(
    core: Core, log: PopularityLog, count: int, rate: float, within: float | None, spread: float
) -> Warmed:
    ids = [id for id in log.top(count) if _is_id(core, id)]
    rate = _check.number("rate", rate, above=0, high=MOST_RATE)
    spread = _check.number("spread", spread, high=1)
    seconds = math.inf if within is None else _check.number("within", within, above=0)
    ends: dict[str, str] = {}

    def note(load: Load) -> None:
        ends.update(load.ends)
        for id, end in load.ends.items():
            if end == "stored":
                log.note_warmed(id)

    twin = beside(core, note, jitter=spread)
    size = max(1, min(BATCH, core.settings.max_loads, int(rate / A_SECOND)))
    began = due = monotonic()
    asked, shut, ended = 0, 0, "all"
    while asked < len(ids):
        await core.waiting.sleep(max(0.0, due - monotonic()))
        if monotonic() - began >= seconds:
            ended = "time"
            break
        batch, before = ids[asked : asked + size], len(ends)
        ready = await loaded_apart(twin, batch)
        if not ready and all(is_shut(core, id) for id in ids[asked:]):
            ended = "failures"
            break
        shut += len(batch) - len(ready)
        asked += len(batch)
        if loaded := list(ends.values())[before:]:
            if not {"stored", "absent", "too large", "refused"} & set(loaded):
                ended = "failures"
                break
        due = max(due, monotonic() - size / rate) + len(loaded) / rate
    kinds = list(ends.values())
    failed = shut + sum(end in ("raised", "unstored") for end in kinds)
    return Warmed(asked, kinds.count("stored"), failed, monotonic() - began, ended)


def _is_id(core: Core, id: str) -> bool:
    """Say whether the cache takes an id: a log counts also what a reader was refused."""
    try:
        core.key(id)
    except (TypeError, ValueError):
        return False
    return True
