"""Adaptive expiry: how long a value may be kept, from how often its row was seen to change.

Of a value that changes at rate r, kept for T seconds, about r T / 2 of its hits are stale, and it
is loaded 1 / T times a second. The fewest loads for a share of stale hits over all ids have T ~
1 / sqrt(r), not 1 / r; where an id's reads weigh w, T ~ 1 / sqrt(w r). The constant is
2 * staleness * sum(w) / sum(sqrt(w r)): as r T / 2 is an upper bound, so is `staleness`.

A rate is estimated from loads alone: the text is another than at the load before, or the same. For
what changed at least once in g seconds, r g / (1 - exp(-r g)) changes are expected (compare Cho and
Garcia-Molina, "Estimating frequency of change", 2003). An id that is seldom loaded is believed to
be much like the others: its evidence is mixed with their mean, which counts as much as `PRIOR`
changes.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from cachelab import _check, _locks

PRIOR = 2.0  # changes
MOST_IDS = 10_000_000


@dataclass(frozen=True)
class ExpiryStats:
    """What an AdaptiveTTL has seen since it was made.

    Attributes:
        loads: Values whose time to live it gave.
        changed: Of these, those that had changed since they were loaded before.
        ids: Ids that it knows now.
        rate: Changes a second of an id that it does not know.
        at_low: Loads that got `low`, since less was wanted: there staleness may be more than asked.
        at_high: Loads that got `high`.
    """

    loads: int
    changed: int
    ids: int
    rate: float
    at_low: int
    at_high: int


@dataclass(slots=True)
class _Known:
    """What is known of an id; changes and seconds fade."""

    text: int
    at: float
    changes: float = 0.0
    seconds: float = 0.0
    weight: float = 0.0
    root: float = 0.0


class AdaptiveTTL:
    """Give each value a time to live by how often it changes: an `expiry` of `CacheAside`.

        users = CacheAside(client, load, ttl=300, expiry=AdaptiveTTL(low=1, high=300))

    Of all hits a share of `staleness` may be stale, if all ids are read alike, or as often as
    `reads` says; where ids that change often are read most and nobody says so, it is more. Deletes
    by `invalidate` make it less. Every process learns by itself. A hit does not come by here.

    Args:
        low: Seconds that a value lives at least.
        high: Seconds that it lives at most; the cache's ttl bounds it too.
        staleness: The share of hits that may be stale.
        memory: Seconds after which what was seen of an id counts less, by 1 / e: 20 times high,
            unless it is told.
        reads: A function that returns how often an id is read, in any unit, such as
            `PopularityLog.reads`.
        most_ids: Ids that it knows at most, some 300 bytes each; those loaded longest ago go.
        enabled: Whether it learns and adapts; without it every value gets high. May be changed at
            any time.
        clock: Seconds.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        low: float,
        high: float,
        staleness: float = 0.05,
        memory: float | None = None,
        reads: Callable[[str], float] | None = None,
        most_ids: int = 100_000,
        enabled: bool = True,
        clock: Callable[[], float] = monotonic,
    ):
        self._low = _check.number("low", low, above=0)
        self._high = _check.number("high", high, low=self._low)
        self._staleness = _check.number("staleness", staleness, above=0, high=1)
        memory = 20 * self._high if memory is None else memory
        self._memory = _check.number("memory", memory, above=0)
        if reads is not None and not callable(reads):
            raise TypeError(f"reads must be a function, not {reads!r}")
        self._reads = reads
        self._most_ids = _check.whole("most_ids", most_ids, least=1, most=MOST_IDS)
        self.enabled = enabled
        self._clock = clock
        self._lock = _locks.lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        # One change is made up, so that before anything is known values live for low.
        self._changes, self._seconds = 1.0, self._low / (2 * self._staleness)
        self._weights = self._roots = 0.0
        self._loads = self._changed = self._at_low = self._at_high = 0

    def __call__(self, id: str, text: str) -> float:
        """Take note of what was just loaded for an id; return the seconds that it may live."""
        if not self.enabled:
            return self._high
        with self._lock:
            known = self._seen(id, text, self._clock())
            wanted = self._wanted(known)
            self._loads += 1
            self._at_low += wanted <= self._low
            self._at_high += wanted >= self._high
            return min(max(wanted, self._low), self._high)

    def rate(self, id: str) -> float:
        """Return the changes a second that it believes an id to have."""
        return self._rate(self._known.get(id) or _Known(0, 0.0))

    @property
    def stats(self) -> ExpiryStats:
        """The counts so far."""
        seen = self._loads, self._changed, len(self._known), self._changes / self._seconds
        return ExpiryStats(*seen, self._at_low, self._at_high)

    def _seen(self, id: str, text: str, now: float) -> _Known:
        """Return what is known of an id, this load included."""
        mark = hash(text)
        known = self._known.pop(id, None)
        if known is None:
            known = _Known(mark, now)
        elif now > known.at:
            self._learn(known, known.text != mark, now - known.at)
            known.text, known.at = mark, now
        self._weigh(known, 1.0 if self._reads is None else max(self._reads(id), 1e-9))
        self._known[id] = known
        if len(self._known) > self._most_ids:
            self._forget(self._known.popitem(last=False)[1])
        return known

    def _learn(self, known: _Known, has_changed: bool, gap: float) -> None:
        """Take note of whether a value changed in the seconds between two loads."""
        expected = 0.0
        if has_changed:
            self._changed += 1
            times = self._rate(known) * gap
            expected = times / -math.expm1(-times)
        kept = math.exp(-gap / self._memory)
        changes, seconds = known.changes * kept + expected, known.seconds * kept + gap
        self._changes += changes - known.changes
        self._seconds += seconds - known.seconds
        known.changes, known.seconds = changes, seconds

    def _weigh(self, known: _Known, weight: float) -> None:
        root = math.sqrt(weight * self._rate(known))
        self._weights += weight - known.weight
        self._roots += root - known.root
        known.weight, known.root = weight, root

    def _forget(self, known: _Known) -> None:
        self._changes -= known.changes
        self._seconds -= known.seconds
        self._weights -= known.weight
        self._roots -= known.root

    def _rate(self, known: _Known) -> float:
        """Return an id's changes a second: what was seen, mixed with the mean of all ids."""
        return (PRIOR + known.changes) / (PRIOR * self._seconds / self._changes + known.seconds)

    def _wanted(self, known: _Known) -> float:
        return 2 * self._staleness * self._weights / (self._roots * known.root)
