"""Workloads: what is asked for and when, as seeded arrays or from a file; and what theory says a cache makes of it.

A trace is an array of whole numbers, one a request, in order: the ids of the keys that are asked for. Of Zipf's ids 0 is
the most popular. The same arguments give the same trace.
"""

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import expm1, isfinite
from os import PathLike
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from cachelab import _check
from cachelab.errors import CachelabError

Ids = np.ndarray  # of int64
COLUMNS = ("time", "key", "size")  # of a trace in a file
LONGEST = 2**18  # characters of a line that are read; no line of a trace is so long, and a file without any ends early


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
    trace = np.asarray(trace, int)
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
    periods, rest = np.divmod(even, period)
    at = np.linspace(0, period, 10_000)
    return periods * period + np.interp(
        rest, at + swing * period / (2 * np.pi) * (1 - np.cos(2 * np.pi * at / period)), at
    )


def from_csv(path: str | PathLike) -> Trace:
    """Read a trace: one key a line, or columns time, key, size with commas, semicolons or tabs between them.

    A first line may name the columns in any order; key is then the only one that must be there, and unknown ones are passed
    over. time: seconds, never falling. size: the value's bytes. A key that holds a comma stands in double quotes. Empty
    lines and blanks before a cell do not count. Memory grows by the distinct keys and by some bytes a line.
    Raises TraceError, which names the line, where something else stands.
    """
    path, columns, done = Path(path), None, 0  # done: the lines behind us, those of whole rows
    numbers, ids, times, sizes = {}, array("q"), array("d"), array("q")
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            opening = next(lines := _lines(file), "")
            rows = csv.reader(
                chain([opening], lines), delimiter=_delimiter(opening), skipinitialspace=True, strict=True
            )
            for row in rows:
                if row and columns is None:
                    columns, named = _columns(row)
                    time, key, size = (columns.index(name) if name in columns else None for name in COLUMNS)
                    row = [] if named else row
                if row:
                    if len(row) != len(columns):
                        raise ValueError(
                            f"wants {', '.join(columns)}, and holds {_shown(row)}: a key with a comma is quoted"
                        )
                    if (name := row[key]) not in numbers:
                        numbers[_check.identity("key", name)] = len(numbers)
                    ids.append(numbers[name])
                    if time is not None:
                        times.append(_time(row[time], times[-1] if times else None))
                    if size is not None:
                        sizes.append(_size(row[size]))
                done = rows.line_num
        except (ValueError, csv.Error) as error:
            way_out = ": is a double quote missing?" if isinstance(error, csv.Error) else ""
            raise TraceError(f"{path.name}, line {done + 1}: {error}{way_out}") from None
    if not ids:
        raise TraceError(f"{path.name} holds no request: a trace is one key a line, or columns {', '.join(COLUMNS)}")
    told = {"times": np.array(times) if times else None, "sizes": np.array(sizes) if sizes else None}
    return Trace(np.array(ids), list(numbers), **told)


def che(popularity: np.ndarray, capacity: float) -> float:
    """Return the hit rate of an LRU cache that holds ``capacity`` keys, requests being drawn independently by popularity.

    Che's approximation: a key stays for about the same number T of requests after each of its own, so it is there with
    probability 1 - exp(-p T), and T is such that capacity keys are (Che, Tung and Wang, 2002). That is a cache that has been
    filled: before a trace has asked for capacity different keys, and a little longer, it hits less often.

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


def _lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a text, before csv finds quotes and columns in what is none; one without line ends comes in parts."""
    for line in iter(partial(file.readline, LONGEST), ""):
        try:
            if "\0" in line or not (line.isascii() or line.encode()):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"wants text in UTF-8, and holds {_shown(line)}: unpack the file, or save it as UTF-8"
            ) from None
        yield line


def _delimiter(line: str) -> str:
    """Return what stands between a file's columns: a comma, unless another mark makes columns of a trace of its first line."""
    for mark in ";\t":
        cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])
        named = len(cells) > 1 and "key" in (cell.strip().lower() for cell in cells)
        if named or (len(cells) == 3 and None not in (_number(float, cells[0]), _number(int, cells[2]))):
            return mark
    return ","


def _columns(first: list[str]) -> tuple[list[str], bool]:
    """Return the columns' names, and whether the first row is these."""
    if "key" in (names := [cell.strip().lower() for cell in first]):
        return names, True
    if len(first) not in (1, 3):
        wanted = f"one key, the columns {', '.join(COLUMNS)}, or a line that names them"
        raise ValueError(f"wants {wanted}, and holds {_shown(first)}")
    return (["key"] if len(first) == 1 else [*COLUMNS]), False


def _time(text: str, last: float | None) -> float:
    time = _number(float, text)
    if time is None or not isfinite(time):
        raise ValueError(f"time must be seconds, a number, not {_shown(text)}: turn dates into seconds")
    if last is not None and time < last:
        raise ValueError(f"time must never fall, not {_shown(text)} after {last:.15g}: sort the lines by time")
    return time


def _size(text: str) -> int:
    size = _number(int, text)
    if size is None or not 0 <= size < 2**63:
        raise ValueError(f"size must be a whole number of bytes, at least 0, not {_shown(text)}")
    return size


def _number(kind: type, text: str) -> float | None:
    try:
        return None if "_" in text else kind(text)  # Python takes 1_000 for a number; nobody else does
    except ValueError:
        return None


def _shown(value: object) -> str:
    return text if len(text := repr(value)) <= 60 else f"{text[:60]}..."
