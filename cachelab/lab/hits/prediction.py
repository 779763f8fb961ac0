"""Do predictions pay? Techniques of `cachelab.smart` on traces, each beside what cannot be learned.

A `Case` is a trace with whose reads they are, when, and how often each row changes. A technique is
played on it by the package's own parts, with a clock that is the trace's, beside a cache without
it; and on a control, the same case without what the technique learns from: reads in another order,
rates that are all alike, a popularity that went to other ids. What it gains there is not its own.
"""

import math
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import NormalDist
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from cachelab import _check
from cachelab.lab.hits import workload
from cachelab.lab.hits.traces import Trace, python_names
from cachelab.smart import AdaptiveTTL, Ledger, Markov, PopularityLog, Predictor

LASTS = 400.0  # seconds from a case's first read to its last
PER_KEY = 50  # reads of a key, on average, where a case is made up
TTL = 20.0  # seconds, of the cache without a technique
RATES = (0.0005, 0.05)  # changes a second of a row, from the calmest to the busiest
SEEDS = range(10)
PARTS = 10  # of a trace that was not made up
LEAST = 100  # reads of a case: of fewer there is nothing to be learned
RESAMPLES = 4000
AROUND = (0.5, 0.7, 1.0, 1.4, 2.0)  # of the time to live that lets as many reads be stale
COUNTS = ["reads", "hits", "loads", "stale"]


@dataclass(frozen=True, eq=False)
class Case:
    """Reads, and changes of what is read.

    Attributes:
        ids: Whole numbers, one a read.
        streams: Whose read it is, one a read.
        times: Seconds from 0, one a read, never falling.
        rates: Changes a second of each id, at random moments.
        seed: Of these moments, and of what controls deal anew.
    """

    ids: np.ndarray
    streams: np.ndarray
    times: np.ndarray
    rates: np.ndarray
    seed: int

    @cached_property
    def changes(self) -> list[list[float]]:
        """The moments when each row changes, in order."""
        rng, end = np.random.default_rng([self.seed, 6]), float(self.times[-1])
        numbers = rng.poisson(self.rates * end)
        moments = np.split(rng.uniform(0, end, numbers.sum()), np.cumsum(numbers)[:-1])
        return [np.sort(one).tolist() for one in moments]

    def room(self, share: float) -> int:
        """Return how many ids a cache holds that has room for a share of those that are read."""
        return max(1, round(share * len(np.unique(self.ids))))


@dataclass
class Counts:
    """What a cache made of a case, and the seconds that a technique took to decide."""

    reads: int = 0
    hits: int = 0
    loads: int = 0
    stale: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Technique:
    """What is on trial.

    Attributes:
        play: Returns the counts with the technique, and those without it.
        control: Returns a case without what the technique learns from.
    """

    play: Callable[[Case], tuple[Counts, Counts]]
    control: Callable[[Case], Case]


# Cases, by seed.


def case_of(
    ids: np.ndarray,
    seed: int,
    streams: np.ndarray | None = None,
    times: np.ndarray | None = None,
    rates: tuple[float, float] = RATES,
) -> Case:
    """Return a case of these reads; each id's rate is drawn, log-uniformly, from ``rates``.

    Args:
        ids: What is read, in order: any whole numbers, two or more.
        seed: Of the rates and of the changes.
        streams: Whose read it is; by default all are one reader's.
        times: When, in any unit, never falling; by default all are as far apart.
        rates: Changes a second, from the calmest row to the busiest.

    Raises:
        ValueError: There are not as many streams or times as ids, or times fall.
    """
    reads = _check.whole("the number of ids", len(ids), least=2)
    for name, given in (("streams", streams), ("times", times)):
        if given is not None and len(given) != reads:
            raise ValueError(f"{name} must be one a read, {reads}, not {len(given)}")
    if times is not None and not np.all(np.diff(times) >= 0):
        raise ValueError("times must be numbers that never fall")
    numbers = np.unique(np.asarray(ids), return_inverse=True)[1]
    low = _check.number("the lower of rates", rates[0], above=0)
    high = _check.number("the higher of rates", rates[1], low=low)
    rng = np.random.default_rng([seed, 1])
    drawn = np.exp(rng.uniform(np.log(low), np.log(high), numbers.max() + 1))
    at = np.arange(len(numbers)) if times is None else np.asarray(times)
    at = (at - at[0]) / max(at[-1] - at[0], 1e-9) * LASTS
    mine = np.zeros(len(numbers), int) if streams is None else np.asarray(streams)
    return Case(numbers, mine, at, drawn, seed)


def independent(reads: int, seed: int) -> Case:
    """Return Zipf reads that know nothing of one another: there is no next id to be learned."""
    return case_of(workload.zipf(reads, reads // PER_KEY, 0.9, seed), seed, _crowd(reads, seed))


def shifting(reads: int, seed: int) -> Case:
    """Return Zipf reads whose favourites are dealt out anew five times."""
    ids = workload.shifting(reads, reads // PER_KEY, 0.9, reads // 5, seed)
    return case_of(ids, seed, _crowd(reads, seed))


def sessions(reads: int, seed: int, readers: int = 20) -> Case:
    """Return the reads of readers who follow links, all at the same time.

    Of a page's three links the first is followed in six of ten cases; one read in eight begins
    anew at a page drawn by Zipf.
    """
    rng, keys = np.random.default_rng([seed, 2]), reads // PER_KEY
    links = rng.integers(0, keys, (keys, 3))
    begins = workload.zipf(reads, keys, 0.9, seed)
    streams, anew = rng.integers(0, readers, reads), rng.random(reads) < 0.125
    which = rng.choice(3, reads, p=[0.6, 0.25, 0.15])
    at = rng.integers(0, keys, readers)
    ids = np.empty(reads, int)
    for read, stream in enumerate(streams.tolist()):
        at[stream] = begins[read] if anew[read] else links[at[stream], which[read]]
        ids[read] = at[stream]
    return case_of(ids, seed, streams)


def names(reads: int, seed: int) -> Case:
    """Return names in the source of Python's own library, from a place that the seed chooses."""
    return cut(_library(PARTS * reads), reads, seed)


def cut(trace: Trace, reads: int, seed: int) -> Case:
    """Return a part of a trace, such as `from_csv` returns: one of ten that do not overlap.

    Verdicts take their seeds for so many trials. A part that is tried twice is one, and what came
    by chance would be certain.

    Args:
        trace: At least a thousand reads.
        reads: In a part, at most a tenth of the trace.
        seed: Which part, from 0 to 9.

    Raises:
        ValueError: The trace is too short, or has no such part.
    """
    least = PARTS * LEAST
    if len(trace.ids) < least:
        raise ValueError(f"the trace must have {least} reads or more, not {len(trace.ids)}")
    seed = _check.whole(f"seed, of {PARTS} parts of a trace,", seed, least=0, most=PARTS - 1)
    size = min(reads, len(trace.ids) // PARTS)
    start = seed * (len(trace.ids) - size) // (PARTS - 1)
    part = slice(start, start + size)
    return case_of(trace.ids[part], seed, times=None if trace.times is None else trace.times[part])


def traces(reads: int, own: Trace | None = None) -> dict[str, Callable[[int], Case]]:
    """Return makers of cases by seed: the control first, and the learner's own trace last.

    Args:
        reads: In each case.
        own: Another trace, such as `from_csv` returns.
    """
    reads = _check.whole("reads", reads, least=LEAST)
    made: dict[str, Callable[[int], Case]] = {
        "independent": lambda seed: independent(reads, seed),
        "sessions": lambda seed: sessions(reads, seed),
        "shifting": lambda seed: shifting(reads, seed),
        "Python's names": lambda seed: names(reads, seed),
    }
    return made if own is None else made | {"your own": lambda seed: cut(own, reads, seed)}


# Techniques


def prefetching(
    make: Callable[[], Predictor[int]] = Markov, budget: float = 0.2, room: float = 0.2
) -> Technique:
    """Return next-key prefetch by a predictor; what is prefetched is there by the next read.

    Args:
        make: Returns a predictor that has seen nothing.
        budget: As of `cachelab.smart.Prefetcher`.
        room: The share of the ids that the cache holds.
    """

    def play(case: Case) -> tuple[Counts, Counts]:
        cache = _Cache(case, room)
        ledger: Ledger[int] = Ledger(budget, TTL, lambda: cache.now)
        predictor = make()
        for id, stream, now in _reads(case):
            has_hit = cache.read(id, now, TTL)
            began = perf_counter()
            if not has_hit:
                ledger.missed(id)
            ledger.read(id)
            guess = predictor.next(id, stream)
            is_wanted = guess is not None and guess != id and ledger.may(guess)
            cache.counts.seconds += perf_counter() - began
            if guess is None or not is_wanted:
                continue
            if cache.holds(guess):
                ledger.spared(guess)
            else:
                cache.load(guess, TTL)
                ledger.loaded(guess)
        return cache.counts, _played(case, TTL, room)

    return Technique(play, shuffled)


def adapting(
    staleness: float = 0.05, low: float = 1.0, high: float = 120.0, knows_reads: bool = False
) -> Technique:
    """Return adaptive expiry, beside the one time to live that lets as many reads be stale.

    That is found afterwards, for each case by itself, as nobody could beforehand. The cache has
    room for all, so that time alone ends a copy.

    Args:
        staleness: The share of hits that may be stale.
        low: Seconds that a value lives at least.
        high: Seconds that it lives at most.
        knows_reads: Whether a log of reads tells it how often each id is read.
    """

    def play(case: Case) -> tuple[Counts, Counts]:
        cache, given = _Cache(case), 0.0
        log = PopularityLog(case.room(1), clock=lambda: cache.now)
        reads = log.rate if knows_reads else None
        adaptive = AdaptiveTTL(low, high, staleness, reads=reads, clock=lambda: cache.now)
        for id, _, now in _reads(case):
            has_hit, name = cache.hits(id, now), str(id)
            began = perf_counter()
            if knows_reads:
                log.read(name)
            if not has_hit:
                ttl = adaptive(name, str(cache.version(id)))
            cache.counts.seconds += perf_counter() - began
            if not has_hit:
                cache.load(id, ttl)
                given += ttl
        return cache.counts, _fixed(case, cache.counts, given / cache.counts.loads)

    return Technique(play, alike)


def warming(count: float = 0.4, rate: float = 100.0, room: float = 0.5) -> Technique:
    """Return warming after a restart in the middle, beside a cold one; only what follows counts.

    That is, as many seconds as a value lives.

    Args:
        count: The share of the ids that are loaded, the most popular first.
        rate: Loads a second.
        room: The share of the ids that the cache holds.
    """

    def play(case: Case) -> tuple[Counts, Counts]:
        middle, now = len(case.ids) // 2, 0.0
        log = PopularityLog(case.room(1), clock=lambda: now)
        past = case.times[:middle].tolist()
        names = [str(id) for id in case.ids[:middle].tolist()]
        began = perf_counter()
        for name, now in zip(names, past, strict=True):  # noqa: B007
            log.read(name)
        seconds = (perf_counter() - began) / middle
        end = int(np.searchsorted(case.times, case.times[middle] + TTL))
        window = slice(middle, end)
        after = replace(
            case, ids=case.ids[window], streams=case.streams[window], times=case.times[window]
        )
        wanted = [int(id) for id in log.top(case.room(count))]
        warm, cold = _Cache(case, room), _Cache(case, room)  # both empty
        warmed, start = 0, after.times[0]
        for id, _, now in _reads(after):
            warm.now = now
            while warmed < min(len(wanted), rate * (now - start)):
                if not warm.holds(wanted[warmed]):
                    warm.load(wanted[warmed], TTL)
                warmed += 1
            warm.read(id, now, TTL)
            cold.read(id, now, TTL)
        warm.counts.seconds = seconds * warm.counts.reads
        return warm.counts, cold.counts

    return Technique(play, forgotten)


def shuffled(case: Case) -> Case:
    """Return a case with the same reads in another order: no id follows another any more."""
    order = np.random.default_rng([case.seed, 4]).permutation(len(case.ids))
    return replace(case, ids=case.ids[order], streams=case.streams[order])


def alike(case: Case) -> Case:
    """Return a case whose rows all change as often as they did on average."""
    return replace(case, rates=np.full(len(case.rates), case.rates.mean()))


def forgotten(case: Case) -> Case:
    """Return a case in whose first half other ids were popular than in the second."""
    half, ids = len(case.ids) // 2, case.ids.copy()
    others = np.random.default_rng([case.seed, 5]).permutation(len(case.rates))
    ids[:half] = others[ids[:half]]
    return replace(case, ids=ids)


TECHNIQUES: dict[str, Technique] = {
    "warming": warming(),
    "adaptive TTL": adapting(),
    "adaptive TTL, reads known": adapting(knows_reads=True),
    "next key, order 1": prefetching(lambda: Markov(1)),
    "next key, order 2": prefetching(lambda: Markov(2)),
}


# Verdicts


def trials(
    cases: Mapping[str, Callable[[int], Case]],
    techniques: Mapping[str, Technique] = TECHNIQUES,
    seeds: Iterable[int] = SEEDS,
) -> pd.DataFrame:
    """Play each technique on each trace and on its control, once for each seed.

    Args:
        cases: Makers of cases by the name of a trace, as from `traces`.
        techniques: By name.
        seeds: Whole numbers.

    Returns:
        The tidy frame (trace, technique, is_control, seed, reads, hits, loads, stale, and the same
        three of the cache without it, as hits_without ..., us_a_read).
    """
    rows = []
    for name, make in cases.items():
        for seed in seeds:
            case = make(seed)
            controls = {one.control: one.control(case) for one in techniques.values()}
            for technique, one in techniques.items():
                for is_control, played in ((False, case), (True, controls[one.control])):
                    with_it, without = one.play(played)
                    counts = {count: getattr(with_it, count) for count in COUNTS}
                    counts |= {f"{c}_without": getattr(without, c) for c in COUNTS[1:]}
                    us = {"us_a_read": 1e6 * with_it.seconds / with_it.reads}
                    where = {"trace": name, "technique": technique}
                    rows.append(where | {"is_control": is_control, "seed": seed} | counts | us)
    return pd.DataFrame(rows)


def gains(df: pd.DataFrame) -> pd.DataFrame:
    """Return, for each row of `trials`, what the technique gained and what it cost.

    Returns:
        The columns trace, technique, is_control, seed; points: of 100 reads, the hits gained;
        loads_percent: loads more, of those without it; stale_points: of 100 reads, those that
        became stale; us_a_read.
    """
    made = df[["trace", "technique", "is_control", "seed"]].copy()
    made["points"] = 100 * (df["hits"] - df["hits_without"]) / df["reads"]
    made["loads_percent"] = 100 * (df["loads"] / df["loads_without"] - 1)
    made["stale_points"] = 100 * (df["stale"] - df["stale_without"]) / df["reads"]
    made["us_a_read"] = df["us_a_read"]
    return made


def verdicts(df: pd.DataFrame) -> pd.DataFrame:
    """Return a verdict on each technique and trace, from a frame of `trials`.

    "none": the interval of the hits gained holds 0. "costs": hits are lost. "pays": hits are
    gained, and more of them than on the control. "artefact": the control gains alike, so that
    what was learned is not what it comes from. "no control": hits are gained, and nobody knows
    whether for that reason. What it is paid with stands beside it, in loads, staleness and time.

    Returns:
        The frame (trace, technique, seeds, points, loads_percent, stale_points, each with _low and
        _high, us_a_read, control_points, beyond_control with _low and _high, verdict). Intervals
        are of 95 %, by bootstrap over seeds; beyond_control is paired by seed.
    """
    rows = []
    for (trace, technique), group in gains(df).groupby(["trace", "technique"], sort=False):
        parts = {
            is_control: part.set_index("seed") for is_control, part in group.groupby("is_control")
        }
        row: dict[str, Any] = {"trace": trace, "technique": technique}
        mine = parts[False]
        row["seeds"] = len(mine)
        for column in ("points", "loads_percent", "stale_points"):
            row |= interval(column, mine[column])
        row["us_a_read"] = mine["us_a_read"].median()
        if True in parts:
            row["control_points"] = parts[True]["points"].mean()
            row |= interval("beyond_control", mine["points"] - parts[True]["points"])
        rows.append(row | {"verdict": _verdict(row)})
    return pd.DataFrame(rows)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["points_low"] <= 0 <= row["points_high"]:
        return "none"
    if row["points_high"] < 0:
        return "costs"
    if "beyond_control_low" not in row:
        return "no control"
    return "pays" if row["beyond_control_low"] > 0 else "artefact"


def interval(column: str, values: pd.Series) -> dict[str, float]:
    """Return the mean of some values, and its interval of 95 %, by bootstrap.

    Few values vary less than what they stand for: the percentiles are those that, of normal
    values, give Student's interval (Hesterberg, "What teachers should know about the bootstrap",
    2015). One or two tell of no interval: it has no end.
    """
    found = values.to_numpy(float)
    if len(found) < 3:
        return {column: found.mean(), f"{column}_low": -math.inf, f"{column}_high": math.inf}
    chosen = np.random.default_rng(0).integers(0, len(found), (RESAMPLES, len(found)))
    means = found[chosen].mean(axis=1)
    outside = 100 * NormalDist().cdf(-_student(len(found)))
    low, high = np.percentile(means, [outside, 100 - outside])
    return {column: found.mean(), f"{column}_low": low, f"{column}_high": high}


def _student(count: int) -> float:
    """Return Student's factor of 95 % for a mean of so many values, in their own deviations."""
    free, z = count - 1, NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * free)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return math.sqrt(count / free) * (z + first + second)


# The cache of a case


class _Cache:
    """An LRU cache with expiry in front of rows that change, by the clock of a case."""

    def __init__(self, case: Case, room: float = 1.0):
        self.now = 0.0
        self.counts = Counts()
        self._room = case.room(room)
        self._held: OrderedDict[int, tuple[float, int]] = OrderedDict()  # expiry, version
        self._changes = case.changes

    def read(self, id: int, now: float, ttl: float) -> bool:
        """Read an id; load it on a miss. Return whether it was a hit."""
        has_hit = self.hits(id, now)
        if not has_hit:
            self.load(id, ttl)
        return has_hit

    def hits(self, id: int, now: float) -> bool:
        """Read an id; return whether it was a hit."""
        self.now = now
        self.counts.reads += 1
        if not self.holds(id):
            return False
        self._held.move_to_end(id)
        self.counts.hits += 1
        self.counts.stale += self._held[id][1] != self.version(id)
        return True

    def holds(self, id: int) -> bool:
        held = self._held.get(id)
        return held is not None and held[0] > self.now

    def load(self, id: int, ttl: float) -> None:
        self.counts.loads += 1
        self._held.pop(id, None)
        self._held[id] = self.now + ttl, self.version(id)
        if len(self._held) > self._room:
            self._held.popitem(last=False)

    def version(self, id: int) -> int:
        """Return how often the row has changed."""
        return bisect(self._changes[id], self.now)


def _reads(case: Case) -> Iterable[tuple[int, Hashable, float]]:
    return zip(case.ids.tolist(), case.streams.tolist(), case.times.tolist(), strict=True)


@lru_cache(maxsize=32)
def _played(case: Case, ttl: float, room: float = 1.0) -> Counts:
    """Return what a cache with one time to live for all makes of a case."""
    cache = _Cache(case, room)
    for id, _, now in _reads(case):
        cache.read(id, now, ttl)
    return cache.counts


def _fixed(case: Case, like: Counts, ttl: float) -> Counts:
    """Return what one time to live makes of a case that lets as many reads be stale.

    It is looked for from ttl on; of those around it a curve is drawn, since how many reads are
    stale is chance for each by itself.
    """
    for _ in range(2):
        found = _played(case, ttl)
        ttl *= min(4.0, max(0.25, (like.stale + 1) / (found.stale + 1)))
    tried = [_played(case, ttl * turn) for turn in AROUND]
    if len({one.stale for one in tried}) < 3:  # no curve: hardly anything changes
        return replace(tried[AROUND.index(1.0)], stale=like.stale)
    curve = np.polyfit([math.log1p(one.stale) for one in tried], [one.hits for one in tried], 2)
    hits = min(like.reads, max(0, round(float(np.polyval(curve, math.log1p(like.stale))))))
    return Counts(like.reads, hits, like.reads - hits, like.stale)


def _crowd(reads: int, seed: int, readers: int = 20) -> np.ndarray:
    return np.random.default_rng([seed, 7]).integers(0, readers, reads)


@lru_cache(maxsize=1)
def _library(reads: int) -> Trace:
    return python_names(reads)
