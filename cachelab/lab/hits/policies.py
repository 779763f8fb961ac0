"""Eviction policies by simulation, one request after the other, as a cache-aside meets them.

That is: look, and on a miss put. A cache holds ``capacity`` keys, all of one size.
"""

import heapq
import random
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from cachelab import _check
from cachelab.lab.hits.eviction import POLICIES

Ids = np.ndarray  # of whole numbers, one a request


def simulate(policy: str, trace: Ids, capacity: int, seed: int = 0) -> np.ndarray:
    """Return, for each request of a trace, whether the cache holds its key.

    Args:
        policy: One of POLICIES, or "Belady", whose cache knows the whole trace beforehand: no
            other has more hits.
        trace: The keys asked for, in order.
        capacity: How many keys the cache holds.
        seed: For the policy "random".
    """
    _check.choice("policy", policy, (*POLICIES, "Belady"))
    capacity = _check.whole("capacity", capacity, least=1)
    seed = _check.whole("seed", seed, least=0)
    if policy == "Belady":
        return _belady(trace, capacity)
    hit = POLICIES[policy](capacity, random.Random(seed))
    return np.fromiter(map(hit, np.asarray(trace).tolist()), bool, len(trace))


def reuse_distances(trace: Ids) -> np.ndarray:
    """Return, for each request, how many keys have been asked for since its key was last.

    Different ones, itself counted. An LRU cache hits exactly where this is at most its capacity,
    so that one pass tells the hits of all capacities (Mattson et al., 1970), and with them the
    miss-ratio curve. A key's first request gets the largest int64.
    """
    _, ids = np.unique(trace, return_inverse=True)
    n, order = len(ids), np.argsort(ids, kind="stable")
    last = np.full(n, -1)  # where the same key was asked for before
    again = np.flatnonzero(np.diff(ids[order]) == 0)
    last[order[again + 1]] = order[again]
    # Since then the trace has asked for each key whose own last place was no later: count those,
    # merging sorted halves.
    ranks = np.empty(n, np.int64)
    ranks[np.argsort(last, kind="stable")] = np.arange(n)
    earlier, width = np.zeros(n, np.int64), 1
    while width < n:
        block = np.arange(n) // (2 * width)
        sorted_ = np.argsort(block * n + ranks, kind="stable")
        left = (sorted_ // width) % 2 == 0
        passed = np.cumsum(left) - np.minimum(block[sorted_] * width, n)  # of the left half
        earlier[sorted_[~left]] += passed[~left]
        width *= 2
    return np.where(last < 0, np.iinfo(np.int64).max, earlier - last)


def hit_rates(
    names: Iterable[str], trace: Ids, capacities: Iterable[int], skip: int = 0
) -> pd.DataFrame:
    """Return the tidy frame (policy, capacity, hit_rate, source) of simulations.

    Args:
        names: Policies, as for `simulate`.
        trace: The keys asked for, in order.
        capacities: How many keys the caches hold.
        skip: How many requests at the beginning are not counted.
    """
    skip = _check.whole("skip", skip, least=0)
    if skip >= len(trace):
        rule = f"skip must be less than the {len(trace)} requests of the trace"
        raise ValueError(f"{rule}, not {skip}")
    capacities = [_check.whole("capacity", capacity, least=1) for capacity in capacities]
    rows: list[tuple[str, int, float]] = []
    for name in names:
        if name == "LRU":
            distances = np.sort(reuse_distances(trace)[skip:])
            rates = np.searchsorted(distances, capacities, side="right") / len(distances)
        else:
            hits = [simulate(name, trace, capacity) for capacity in capacities]
            rates = np.array([one[skip:].mean() for one in hits])
        rows += zip([name] * len(rates), capacities, rates.tolist(), strict=True)
    return pd.DataFrame(rows, columns=["policy", "capacity", "hit_rate"]).assign(source="simulated")


def _belady(trace: Ids, capacity: int) -> np.ndarray:
    """Drop, or do not even keep, the key whose next request is farthest away (Belady, 1966)."""
    n, hits = len(trace), np.zeros(len(trace), bool)
    held: dict[int, int] = {}  # id: place of its next request
    farthest: list[tuple[int, int]] = []  # a heap of (-next place, id)
    requests = zip(np.asarray(trace).tolist(), _next_places(trace), strict=True)
    for place, (id, following) in enumerate(requests):
        hits[place] = id in held
        held[id] = following
        heapq.heappush(farthest, (-following, id))
        while len(held) > capacity:
            following, id = heapq.heappop(farthest)
            if held.get(id) == -following:  # else an entry that a later request has replaced
                del held[id]
        if len(farthest) > 4 * capacity + n // 4:
            farthest = [(-following, id) for id, following in held.items()]
            heapq.heapify(farthest)
    return hits


def _next_places(trace: Ids) -> Iterator[int]:
    """Return where each request's key is asked for next.

    For a last time these are places beyond the end, each its own.
    """
    following: list[int] = []
    seen: dict[int, int] = {}
    backwards = np.asarray(trace)[::-1].tolist()
    for place, id in zip(range(len(trace) - 1, -1, -1), backwards, strict=True):
        following.append(seen.get(id, len(trace) + place))
        seen[id] = place
    return reversed(following)
