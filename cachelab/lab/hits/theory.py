"""Theory: what a cache makes of independent requests, and of reads and changes at random moments.

Simulations and servers are held against these lines.
"""

from collections.abc import Callable, Iterable
from math import expm1

import numpy as np
import pandas as pd

from cachelab import _check


def che(popularity: np.ndarray, capacity: float) -> float:
    """Return the hit rate of a full LRU cache whose requests are drawn independently.

    Che's approximation: a key stays for about the same number T of requests after each of its own,
    so it is there with probability 1 - exp(-p T), and T is such that capacity keys are (Che, Tung
    and Wang, 2002). Before a trace has asked for capacity different keys, and a little longer, a
    cache hits less often.

    Args:
        popularity: The share of the requests that each key gets.
        capacity: How many keys the cache holds.

    >>> round(che(np.full(100, 0.01), 25), 3)
    0.25
    """
    return _kept(popularity, capacity, lambda times: -np.expm1(-times))


def che_random(popularity: np.ndarray, capacity: float) -> float:
    """Return what `che` does for a cache that evicts a key at random, or the oldest (FIFO).

    A key is there with probability p T / (1 + p T). Exact in the limit of many keys (Fagin, 1977;
    Martina, Garetto and Leonardi, 2014).
    """
    return _kept(popularity, capacity, lambda times: times / (1 + times))


def ideal_lfu(popularity: np.ndarray, capacity: int) -> float:
    """Return the hit rate of a cache that always holds the ``capacity`` most popular keys.

    Nothing that cannot see the future does better while requests are independent.
    """
    capacity = _check.whole("capacity", capacity, least=0)
    return float(np.sort(popularity)[::-1][:capacity].sum())


def hit_rate_lines(
    popularity: np.ndarray,
    capacities: Iterable[int],
    names: Iterable[str] = ("LRU", "random", "LFU"),
) -> pd.DataFrame:
    """Return the tidy frame (policy, capacity, hit_rate, source) of the theory of each policy.

    These are `che`, `che_random` (for FIFO too), `ideal_lfu`; source is "model" in each row.
    """
    theories = {"LRU": che, "random": che_random, "FIFO": che_random, "LFU": ideal_lfu}
    capacities = list(capacities)
    rows = []
    for name in names:
        theory = theories[_check.choice("name", name, tuple(theories))]
        rows += [(name, capacity, theory(popularity, capacity)) for capacity in capacities]
    return pd.DataFrame(rows, columns=["policy", "capacity", "hit_rate"]).assign(source="model")


def ttl_hit_rate(read_rate: float, ttl: float) -> float:
    """Return the share of reads that hit a key read ``read_rate`` times a second, kept for ttl.

    Reads come at random moments (Poisson) and the expiry counts from the load, so each miss is
    followed by read_rate * ttl hits on average.

    >>> ttl_hit_rate(read_rate=5, ttl=0.6)
    0.75
    """
    return read_rate * ttl / (1 + read_rate * ttl)


def ttl_stale_share(read_rate: float, change_rate: float, ttl: float) -> float:
    """Return the share of reads answered with a value that the row no longer has.

    Nothing deletes the key. Changes come at random moments too, so a copy of age a is stale with
    probability 1 - exp(-change_rate * a), and hits come at all ages up to ttl alike.

    >>> round(ttl_stale_share(read_rate=5, change_rate=0.5, ttl=0.6), 3)
    0.102
    """
    stale_seconds = ttl + expm1(-change_rate * ttl) / change_rate if change_rate else 0.0
    return read_rate * stale_seconds / (1 + read_rate * ttl)


def ttl_trade(read_rate: float, change_rate: float, ttls: Iterable[float]) -> pd.DataFrame:
    """Return the tidy frame (ttl_seconds, answers, share, source) of what TTLs give and cost.

    answers: "hit" or "stale"; share: of all reads.
    """
    reads = _check.number("read_rate", read_rate)
    changes = _check.number("change_rate", change_rate)
    ttls = [_check.number("ttl", ttl) for ttl in ttls]
    rows = [(ttl, "hit", ttl_hit_rate(reads, ttl)) for ttl in ttls]
    rows += [(ttl, "stale", ttl_stale_share(reads, changes, ttl)) for ttl in ttls]
    return pd.DataFrame(rows, columns=["ttl_seconds", "answers", "share"]).assign(source="model")


def _kept(
    popularity: np.ndarray, capacity: float, there: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Return the hit rate when ``there(p T)`` is the probability to be cached; T by bisection."""
    shares = np.asarray(popularity, float)
    if shares.ndim != 1 or not len(shares) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        rule = "popularity must be shares of at least 0 that sum to 1"
        raise ValueError(f"{rule}, not {popularity!r}")
    capacity = _check.number("capacity", capacity)
    if capacity >= np.count_nonzero(shares):
        return 1.0
    low, high = 0.0, 1.0
    while there(high * shares).sum() < capacity:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if there(middle * shares).sum() < capacity else (low, middle)
    return float(shares @ there(high * shares))
