"""Workloads: what is asked for and when, as seeded arrays.

A trace is an array of whole numbers, one a request, in order: the ids of the keys that are asked
for. Of Zipf's ids 0 is the most popular. The same arguments give the same trace. Traces from files
(`traces`) and what theory says of a trace (`theory`) are offered here too.
"""

from itertools import chain

import numpy as np

from cachelab import _check
from cachelab.lab.hits.theory import (
    che,
    che_random,
    hit_rate_lines,
    ideal_lfu,
    ttl_hit_rate,
    ttl_stale_share,
    ttl_trade,
)
from cachelab.lab.hits.traces import Trace, TraceError, from_csv, python_names

__all__ = [
    "Trace",
    "TraceError",
    "arrivals",
    "che",
    "che_random",
    "daily",
    "from_csv",
    "hit_rate_lines",
    "ideal_lfu",
    "one_hit_wonders",
    "popularity",
    "python_names",
    "reads_and_changes",
    "scan",
    "shifting",
    "ttl_hit_rate",
    "ttl_stale_share",
    "ttl_trade",
    "uniform",
    "with_scans",
    "zipf",
]

Ids = np.ndarray  # of int64


def popularity(keys: int, skew: float = 1.0) -> np.ndarray:
    """Return the share of the requests that each key gets under Zipf's law, 1 / rank ** skew.

    The most popular comes first.

    >>> popularity(4, skew=1).round(2).tolist(), popularity(4, skew=0).tolist()
    ([0.48, 0.24, 0.16, 0.12], [0.25, 0.25, 0.25, 0.25])
    """
    keys, skew = _check.whole("keys", keys, least=1), _check.number("skew", skew)
    weights = np.arange(1.0, keys + 1) ** -skew
    return weights / weights.sum()


def uniform(requests: int, keys: int, seed: int = 0) -> Ids:
    """Return requests that want every key alike."""
    return zipf(requests, keys, 0.0, seed)


def zipf(requests: int, keys: int, skew: float = 1.0, seed: int = 0) -> Ids:
    """Return requests drawn independently by `popularity`."""
    requests = _check.whole("requests", requests, least=0)
    return _generator(seed).choice(keys, requests, p=popularity(keys, skew))


def scan(requests: int, keys: int) -> Ids:
    """Return requests that walk through all keys in order, again and again, as a report does."""
    requests = _check.whole("requests", requests, least=0)
    return np.arange(requests) % _check.whole("keys", keys, least=1)


def with_scans(trace: Ids, every: int, length: int) -> Ids:
    """Return the trace with a `scan` of ``length`` further keys after each ``every`` requests.

    It grows by the scans.
    """
    every = _check.whole("every", every, least=1)
    trace = np.asarray(trace, int)
    walk = scan(length, length) + (trace.max(initial=-1) + 1)
    pieces = (
        (piece, walk if len(piece) == every else walk[:0])
        for piece in np.split(trace, range(every, len(trace), every))
    )
    return np.concatenate([*chain.from_iterable(pieces)])


def shifting(
    requests: int, keys: int, skew: float = 1.0, every: int = 10_000, seed: int = 0
) -> Ids:
    """Return Zipf requests whose favourites change after each ``every`` requests.

    The popularity is then dealt out anew among the keys.
    """
    every = _check.whole("every", every, least=1)
    rng, trace = _generator(seed), zipf(requests, keys, skew, seed)
    for start in range(every, len(trace), every):
        trace[start : start + every] = rng.permutation(keys)[trace[start : start + every]]
    return trace


def one_hit_wonders(
    requests: int, keys: int, skew: float = 1.0, share: float = 0.5, seed: int = 0
) -> Ids:
    """Return Zipf requests of which a share asks instead for a key that nobody asks for again."""
    share = _check.number("share", share, high=1)
    trace = zipf(requests, keys, skew, seed)
    once = _generator(seed, 1).random(len(trace)) < share
    trace[once] = keys + np.arange(once.sum())
    return trace


def daily(requests: int, keys: int, skew: float = 1.0, days: float = 2, seed: int = 0) -> Ids:
    """Return requests that swing between two sets of ``keys`` Zipf keys, by day and by night.

    The trace begins at noon; the share of the first set follows a cosine ``days`` times. The
    second set's ids begin at keys.
    """
    days = _check.number("days", days, above=0)
    trace = zipf(requests, keys, skew, seed)
    noon = (1 + np.cos(np.linspace(0, 2 * np.pi * days, len(trace)))) / 2
    return np.where(_generator(seed, 1).random(len(trace)) < noon, trace, trace + keys)


def arrivals(
    requests: int, rate: float, seed: int = 0, swing: float = 0.0, period: float = 86_400.0
) -> np.ndarray:
    """Return when requests arrive, in seconds from 0: an open loop, which waits for nobody.

    A closed loop has no such times: its next request goes out when the last has been answered.

    Args:
        requests: How many.
        rate: Arrivals a second, at random moments (Poisson).
        seed: Of these moments.
        swing: The rate follows rate * (1 + swing * sin(2 pi t / period)), as by day and by night.
        period: Seconds of a swing.
    """
    requests = _check.whole("requests", requests, least=0)
    rate = _check.number("rate", rate, above=0)
    swing = _check.number("swing", swing, high=1)
    period = _check.number("period", period, above=0)
    even = np.cumsum(_generator(seed).exponential(1 / rate, requests))
    if not swing or not requests:
        return even
    periods, rest = np.divmod(even, period)
    at = np.linspace(0, period, 10_000)
    swung = at + swing * period / (2 * np.pi) * (1 - np.cos(2 * np.pi * at / period))
    return periods * period + np.interp(rest, swung, at)


def reads_and_changes(
    keys: int,
    seconds: float,
    read_rate: float,
    change_rate: float,
    joining: float = 0.0,
    seed: int = 0,
) -> list[tuple[float, int, str]]:
    """Return when each key is read and when its row changes, in order of time.

    Both come at random moments (Poisson), independently.

    Args:
        keys: How many.
        seconds: Until when.
        read_rate: Reads of a key a second.
        change_rate: Changes of its row a second.
        joining: Each key joins at a random moment of the first ``joining`` seconds, so that copies
            do not expire together.
        seed: Of all moments.

    Returns:
        Rows of (seconds from 0, key, "read" or "change").
    """
    keys = _check.whole("keys", keys, least=0)
    seconds = _check.number("seconds", seconds, above=0)
    rates = {
        "read": _check.number("read_rate", read_rate),
        "change": _check.number("change_rate", change_rate),
    }
    joining = _check.number("joining", joining, high=seconds)
    rng = _generator(seed)
    events = []
    for key in range(keys):
        joins = rng.uniform(0, joining)
        for what, rate in rates.items():
            moments = rng.uniform(joins, seconds, rng.poisson(rate * (seconds - joins)))
            events += [(moment, key, what) for moment in moments.tolist()]
    return sorted(events)


def _generator(seed: int, *more: int) -> np.random.Generator:
    seed = _check.whole("seed", seed, least=0)
    return np.random.default_rng([seed, *more] if more else seed)
