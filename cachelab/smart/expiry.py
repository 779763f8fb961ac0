"""Adaptive expiry: how long a value may be kept, from how often its row was seen to change.

Of a value that changes at rate c, kept for T seconds, about c T / 2 of its hits are stale, and it
is loaded 1 / T times a second: the fewest loads for a share of stale hits over all ids have T ~
1 / sqrt(c), not 1 / c. Where an id is known to be read r times a second, 1 / (T + 1 / r) loads and
r c T / 2 stale hits a second have (r T / 2 + 1) c T the same for all ids: what is read more lives
shorter, and what is hardly read is loaded anew at each read whatever its life. That number, the
price of a load, is found so that the share of all hits is `staleness`; as c T / 2 is an upper bound
for one id, `staleness` is one for all.

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
from cachelab.cache.stats import log

PRIOR = 1.0  # changes
FIRST = 16  # loads before a price is found, and between two of them at least
SAMPLE = 1000  # ids that it is found by, about
TURNS = 4  # taken to it each time
STEP = 1.5  # its power: staleness grows by a power of the price between 1 / 2 and 1
LEAST, MOST = 1e-9, 1e9  # prices
SELDOM = 1e-6  # reads a second
MOST_IDS = 10_000_000


@dataclass(frozen=True)
class ExpiryStats:
    """What an AdaptiveTTL has seen since it was made.

    Attributes:
        loads: Values whose time to live it gave.
        changed: Of these, those that had changed since they were loaded before.
        ids: Ids that it knows now.
        rate: Changes a second of an id that it does not know.
        at_low: Loads that got `low`, since less was wanted. A row that changes so often that more
            is stale even so is not made up for by the others.
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
    reads: float = math.inf  # a second


class AdaptiveTTL:
    """Give each value a time to live by how often it changes: an `expiry` of `CacheAside`.

        users = CacheAside(client, load, ttl=300, expiry=AdaptiveTTL(low=1, high=300))

    Of all hits a share of `staleness` may be stale, if all ids are read alike, or as often as
    `reads` says; where ids that change often are read most and nobody says so, it is more, and so
    it is where rates have grown, until it has learned that, which takes about `memory`. Deletes by
    `invalidate` make it less. Every process learns by itself. A hit does not come by here.

    Args:
        low: Seconds that a value lives at least, but for the cache's jitter and its ttl.
        high: Seconds that it lives at most; the cache's ttl bounds it too.
        staleness: The share of hits that may be stale.
        memory: Seconds after which what was seen of an id counts less, by 1 / e: 20 times high,
            unless it is told.
        reads: A function that returns how often a second an id is read, such as
            `PopularityLog.rate`. Where it fails nothing is known, which is logged once.
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
        self._price = 0.0  # so far: values live for low
        self._price_due = FIRST  # loads
        self._loads = self._changed = self._at_low = self._at_high = 0
        self._has_said = False

    def __call__(self, id: str, text: str) -> float:
        """Take note of what was just loaded for an id; return the seconds that it may live."""
        if not self.enabled:
            return self._high
        reads = math.inf if self._reads is None else self._reads_of(id, self._reads)
        with self._lock:
            known = self._seen(id, text, self._clock())
            known.reads = reads
            self._loads += 1
            if self._loads >= self._price_due:
                self._find_price()
            ttl = self._life(self._rate(known), known.reads, self._price)
            self._at_low += ttl == self._low
            self._at_high += ttl == self._high
            return ttl

    def rate(self, id: str) -> float:
        """Return the changes a second that it believes an id to have."""
        return self._rate(self._known.get(id) or _Known(0, 0.0))

    @property
    def stats(self) -> ExpiryStats:
        """The counts so far."""
        seen = self._loads, self._changed, len(self._known), self._changes / self._seconds
        return ExpiryStats(*seen, self._at_low, self._at_high)

    def _reads_of(self, id: str, reads: Callable[[str], float]) -> float:
        """Return how often a second an id is read; infinity where a stranger's function fails."""
        try:
            return min(max(_check.number("what reads returns", reads(id)), SELDOM), MOST)
        except Exception as error:
            if not self._has_said:
                self._has_said = True
                log.warning("An adaptive expiry knows no reads of %r, and no others: %s", id, error)
            return math.inf

    def _seen(self, id: str, text: str, now: float) -> _Known:
        """Return what is known of an id, this load included."""
        mark = hash(text)
        known = self._known.pop(id, None)
        if known is None:
            known = _Known(mark, now)
        elif now > known.at:
            self._learn(known, known.text != mark, now - known.at)
            known.text, known.at = mark, now
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

    def _forget(self, known: _Known) -> None:
        self._changes -= known.changes
        self._seconds -= known.seconds

    def _rate(self, known: _Known) -> float:
        """Return an id's changes a second: what was seen, mixed with the mean of all ids."""
        return (PRIOR + known.changes) / (PRIOR * self._seconds / self._changes + known.seconds)

    def _life(self, rate: float, reads: float, price: float) -> float:
        """Return how long an id may live for a price, within the bounds."""
        if rate * self._low > 2 * self._staleness:  # too often for any life
            wanted = self._low
        elif reads == math.inf:
            wanted = math.sqrt(2 * price / rate)
        else:
            wanted = (math.sqrt(1 + 2 * price * reads / rate) - 1) / reads
        return min(max(wanted, self._low), self._high)

    def _find_price(self) -> None:
        """Find the price at which as many hits are stale as may be, over the ids that are known."""
        self._price_due = self._loads + max(FIRST, len(self._known))
        every = 1 + len(self._known) // SAMPLE
        ids = [(self._rate(one), one.reads) for one in list(self._known.values())[::every]]
        ids = [one for one in ids if one[0] * self._low <= 2 * self._staleness]
        if not ids:
            return
        if not self._price:
            self._price = sum(rate for rate, _ in ids) / len(ids) * self._low**2
        for _ in range(TURNS):
            hits = stale = 0.0
            for rate, reads in ids:
                ttl = self._life(rate, reads, self._price)
                share = 1.0 if reads == math.inf else reads * ttl / (ttl + 1 / reads)
                hits += share
                stale += share * rate * ttl / 2
            # At most ten times as much or as little: where all lives are at a bound none is right.
            turn = (self._staleness * hits / stale) ** STEP
            self._price = min(max(self._price * min(max(turn, 0.1), 10.0), LEAST), MOST)
