"""Workloads: what is asked for and when, as seeded arrays or from a file; and what theory says a cache makes of it.

A trace is an array of whole numbers, one a request, in order: the ids of the keys that are asked for. Of Zipf's ids 0 is
the most popular. The same arguments give the same trace.
"""

import csv
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from math import expm1, isfinite
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from cachelab import _check
from cachelab.errors import CachelabError

Ids = np.ndarray  # of int64
COLUMNS = ("time", "key", "size")  # of a trace in a file


class TraceError(CachelabError, ValueError):
    """A file is no trace; the message names the file, the line and the rule."""


@dataclass(frozen=True)
class Trace:
    """A trace from a file: ``ids`` in order of first appearance, the ``names`` behind them, and what else the file told."""

    ids: Ids
    names: list[str]
    times: np.ndarray | None = None  # seconds, never falling
    sizes: np.ndarray | None = None  # bytes


def popularity(keys: int, skew: float = 1.0) -> np.ndarray:
    """Return the share of the requests that each key gets under Zipf's law, 1 / rank ** skew, the most popular first.

    >>> popularity(4, skew=1).round(2).tolist(), popularity(4, skew=0).tolist()
    ([0.48, 0.24, 0.16, 0.12], [0.25, 0.25, 0.25, 0.25])
    """
    weights = np.arange(1.0, _check.whole("keys", keys, least=1) + 1) ** -_check.number("skew", skew)
    return weights / weights.sum()


def uniform(requests: int, keys: int, seed: int = 0) -> Ids:
    """Return requests that want every key alike."""
    return zipf(requests, keys, 0.0, seed)


def zipf(requests: int, keys: int, skew: float = 1.0, seed: int = 0) -> Ids:
    """Return requests drawn independently by `popularity`."""
    _check.whole("requests", requests, least=0)
    return np.random.default_rng(seed).choice(keys, requests, p=popularity(keys, skew))


def scan(requests: int, keys: int) -> Ids:
    """Return requests that walk through all keys in order, again and again, as a nightly report does."""
    return np.arange(_check.whole("requests", requests, least=0)) % _check.whole("keys", keys, least=1)


def with_scans(trace: Ids, every: int, length: int) -> Ids:
    """Return the trace with a `scan` through ``length`` further keys after each ``every`` requests; it grows by the scans."""
    _check.whole("every", every, least=1)
    walk = scan(length, length) + (trace.max(initial=-1) + 1)
    pieces = (
        (piece, walk if len(piece) == every else walk[:0]) for piece in np.split(trace, range(every, len(trace), every))
    )
    return np.concatenate([*chain.from_iterable(pieces)])


def shifting(requests: int, keys: int, skew: float = 1.0, every: int = 10_000, seed: int = 0) -> Ids:
    """Return Zipf requests whose popularity is dealt out anew among the keys after each ``every`` requests."""
    rng, trace = np.random.default_rng(seed), zipf(requests, keys, skew, seed)
    for start in range(_check.whole("every", every, least=1), requests, every):
        trace[start : start + every] = rng.permutation(keys)[trace[start : start + every]]
    return trace


def one_hit_wonders(requests: int, keys: int, skew: float = 1.0, share: float = 0.5, seed: int = 0) -> Ids:
    """Return Zipf requests of which about ``share`` ask instead for a key that nobody asks for again."""
    trace = zipf(requests, keys, skew, seed)
    once = np.random.default_rng([seed, 1]).random(requests) < _check.number("share", share, high=1)
    trace[once] = keys + np.arange(once.sum())
    return trace


def daily(requests: int, keys: int, skew: float = 1.0, days: float = 2, seed: int = 0) -> Ids:
    """Return requests that swing between two sets of ``keys`` Zipf keys, one wanted at noon and one at midnight.

    The trace begins at noon; the share of the first set follows a cosine ``days`` times. The second set's ids begin at keys.
    """
    trace = zipf(requests, keys, skew, seed)
    noon = (1 + np.cos(np.linspace(0, 2 * np.pi * _check.number("days", days, above=0), requests))) / 2
    return np.where(np.random.default_rng([seed, 1]).random(requests) < noon, trace, trace + keys)


def arrivals(requests: int, rate: float, seed: int = 0, swing: float = 0.0, period: float = 86_400.0) -> np.ndarray:
    """Return when requests arrive, in seconds from 0: an open loop, which waits for nobody (Poisson, ``rate`` a second).

    swing: the rate follows rate * (1 + swing * sin(2 pi t / period)), as by day and by night. A closed loop has no such
    times: its next request goes out when the last has been answered.
    """
    _check.number("rate", rate, above=0)
    _check.number("swing", swing, high=1)
    _check.number("period", period, above=0)
    even = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, _check.whole("requests", requests, least=0)))
    if not swing or not requests:
        return even
    at = np.linspace(0, even[-1] + period, 1000 * (2 + int(even[-1] / period)))
    return np.interp(even, at + swing * period / (2 * np.pi) * (1 - np.cos(2 * np.pi * at / period)), at)


def from_csv(path: str | PathLike) -> Trace:
    """Read a trace: one key a line, or comma-separated columns time, key, size.

    A first line may name the columns in any order; key is then the only one that must be there, and unknown ones are passed
    over. time: seconds, never falling. size: the value's bytes. A key that holds a comma stands in double quotes. Empty
    lines do not count. Memory grows by the distinct keys and by some bytes a line.
    Raises TraceError, which names the line, where something else stands.
    """
    numbers, ids, times, sizes = {}, array("q"), array("d"), array("q")
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file, strict=True)
        try:
            first = next((row for row in lines if row), [])
            names = [cell.strip().lower() for cell in first]
            header = "key" in names
            columns = names if header else {1: ["key"], 3: [*COLUMNS]}.get(len(first))
            if first and not columns:
                raise ValueError(f"wants one key, or the columns {', '.join(COLUMNS)}, and holds {first}")
            time, key, size = (
                (columns.index(name) if name in columns else None for name in COLUMNS) if first else [0] * 3
            )
            for row in lines if header else chain([first], lines):
                if not row:
                    continue
                if len(row) != len(columns):
                    raise ValueError(f"wants {', '.join(columns)}, and holds {len(row)} columns")
                if (name := row[key]) not in numbers:
                    numbers[_check.identity("key", name)] = len(numbers)
                ids.append(numbers[name])
                if time is not None:
                    times.append(_time(row[time], times[-1] if times else None))
                if size is not None:
                    sizes.append(_size(row[size]))
        except (ValueError, OverflowError, csv.Error) as error:
            raise TraceError(f"{Path(path).name}, line {max(1, lines.line_num)}: {error}") from None
    if not ids:
        raise TraceError(
            f"{Path(path).name} holds no request: a trace is one key a line, or columns {', '.join(COLUMNS)}"
        )
    told = {"times": np.array(times) if times else None, "sizes": np.array(sizes) if sizes else None}
    return Trace(np.array(ids), list(numbers), **told)


def che(popularity: np.ndarray, capacity: float) -> float:
    """Return the hit rate of an LRU cache that holds ``capacity`` keys, requests being drawn independently by popularity.

    Che's approximation: a key stays for about the same number T of requests after each of its own, so it is there with
    probability 1 - exp(-p T), and T is such that capacity keys are (Che, Tung and Wang, 2002).

    >>> round(che(np.full(100, 0.01), 25), 3)
    0.25
    """
    return _kept(popularity, capacity, lambda times: -np.expm1(-times))


def che_random(popularity: np.ndarray, capacity: float) -> float:
    """Return what `che` does for a cache that evicts a key at random, or the oldest (FIFO): a key is there with pT / (1 + pT).

    Exact in the limit of many keys (Fagin, 1977; Martina, Garetto and Leonardi, 2014).
    """
    return _kept(popularity, capacity, lambda times: times / (1 + times))


def ideal_lfu(popularity: np.ndarray, capacity: int) -> float:
    """Return the hit rate of a cache that always holds the ``capacity`` most popular keys: nothing that cannot see the
    future does better while requests are independent.
    """
    return float(np.sort(popularity)[::-1][: _check.whole("capacity", capacity, least=0)].sum())


def hit_rate_lines(
    popularity: np.ndarray, capacities: Iterable[int], names: Iterable[str] = ("LRU", "random", "LFU")
) -> pd.DataFrame:
    """Return the tidy frame (policy, capacity, hit_rate, source) of the theory of each policy: `che`, `che_random` (for FIFO
    too), `ideal_lfu`. source is "model" in each row.
    """
    theories = {"LRU": che, "random": che_random, "FIFO": che_random, "LFU": ideal_lfu}
    capacities = list(capacities)
    rows = [(name, capacity, theories[_check.choice("name", name, tuple(theories))](popularity, capacity))
            for name in names for capacity in capacities]  # fmt: skip
    return pd.DataFrame(rows, columns=["policy", "capacity", "hit_rate"]).assign(source="model")


def ttl_hit_rate(read_rate: float, ttl: float) -> float:
    """Return the share of reads that hit a key read ``read_rate`` times a second and kept for ttl seconds.

    Reads come at random moments (Poisson) and the expiry counts from the load, so each miss is
    followed by read_rate * ttl hits on average.

    >>> ttl_hit_rate(read_rate=5, ttl=0.6)
    0.75
    """
    return read_rate * ttl / (1 + read_rate * ttl)


def ttl_stale_share(read_rate: float, change_rate: float, ttl: float) -> float:
    """Return the share of reads answered with a value that the row no longer has; nothing deletes the key.

    Changes come at random moments too, so a copy of age a is stale with probability
    1 - exp(-change_rate * a), and hits come at all ages up to ttl alike.

    >>> round(ttl_stale_share(read_rate=5, change_rate=0.5, ttl=0.6), 3)
    0.102
    """
    stale_seconds = ttl + expm1(-change_rate * ttl) / change_rate if change_rate else 0.0
    return read_rate * stale_seconds / (1 + read_rate * ttl)


def ttl_trade(read_rate: float, change_rate: float, ttls: Iterable[float]) -> pd.DataFrame:
    """Return the tidy frame (ttl_seconds, answers, share, source): the share of reads that "hit", and that are "stale"."""
    rows = [(ttl, "hit", ttl_hit_rate(read_rate, ttl)) for ttl in ttls]
    rows += [(ttl, "stale", ttl_stale_share(read_rate, change_rate, ttl)) for ttl, *_ in rows]
    return pd.DataFrame(rows, columns=["ttl_seconds", "answers", "share"]).assign(source="model")


def _kept(popularity: np.ndarray, capacity: float, there: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the hit rate when ``there(p T)`` is the probability to be cached and T fits the capacity, by bisection."""
    shares = np.asarray(popularity, float)
    if shares.ndim != 1 or not len(shares) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"popularity must be shares of at least 0 that sum to 1, not {popularity!r}")
    if _check.number("capacity", capacity) >= np.count_nonzero(shares):
        return 1.0
    low, high = 0.0, 1.0
    while there(high * shares).sum() < capacity:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if there(middle * shares).sum() < capacity else (low, middle)
    return float(shares @ there(high * shares))


def _time(text: str, last: float | None) -> float:
    time = _number(float, text)
    if time is None or not isfinite(time) or (last is not None and time < last):
        after = "" if last is None else f" after {last:g}"
        raise ValueError(f"time must be seconds that never fall, not {text!r}{after}")
    return time


def _size(text: str) -> int:
    size = _number(int, text)
    if size is None or size < 0:
        raise ValueError(f"size must be a whole number of bytes, at least 0, not {text!r}")
    return size


def _number(kind: type, text: str) -> float | None:
    try:
        return kind(text)
    except ValueError:
        return None
