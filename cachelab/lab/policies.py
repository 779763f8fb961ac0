"""Eviction policies by simulation, one request after the other, as a cache-aside meets them: look, and on a miss put.

LRU, LFU and FIFO are cachetools'; the others are written here, each from its paper. A cache holds ``capacity`` keys, all
of one size.
"""

import heapq
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator

import cachetools
import numpy as np

from cachelab import _check

Ids = np.ndarray  # of whole numbers, one a request
Hit = Callable[[int], bool]  # asks for a key, puts it on a miss, and says whether it was there


def simulate(policy: str, trace: Ids, capacity: int, seed: int = 0) -> np.ndarray:
    """Return, for each request of a trace, whether a cache of ``capacity`` keys under one of POLICIES holds its key.

    Belady's cache knows the whole trace beforehand, and no other has more hits. seed: for the policy "random".
    """
    _check.choice("policy", policy, (*POLICIES, "Belady"))
    _check.whole("capacity", capacity, least=1)
    if policy == "Belady":
        return _belady(trace, capacity)
    hit = POLICIES[policy](capacity, random.Random(seed))
    return np.fromiter(map(hit, np.asarray(trace).tolist()), bool, len(trace))


def reuse_distances(trace: Ids) -> np.ndarray:
    """Return, for each request, how many different keys have been asked for since its key was last, itself counted.

    An LRU cache hits exactly where this is at most its capacity, so that one pass tells the hits of all capacities (Mattson
    et al., 1970). A key's first request gets the largest int64.
    """
    _, ids = np.unique(trace, return_inverse=True)
    n, order = len(ids), np.argsort(ids, kind="stable")
    last = np.full(n, -1)  # where the same key was asked for before
    again = np.flatnonzero(np.diff(ids[order]) == 0)
    last[order[again + 1]] = order[again]
    # Since then the trace has asked for each key whose own last place was no later: count those, merging sorted halves.
    ranks = np.empty(n, np.int64)
    ranks[np.argsort(last, kind="stable")] = np.arange(n)
    earlier, width = np.zeros(n, np.int64), 1
    while width < n:
        block = np.arange(n) // (2 * width)
        sorted_ = np.argsort(block * n + ranks, kind="stable")
        left = (sorted_ // width) % 2 == 0
        passed = np.cumsum(left) - np.minimum(block[sorted_] * width, n)  # of the left half, up to here
        earlier[sorted_[~left]] += passed[~left]
        width *= 2
    return np.where(last < 0, np.iinfo(np.int64).max, earlier - last)


def lru_hit_rates(trace: Ids, capacities: Ids) -> np.ndarray:
    """Return the hit rate of an LRU cache of each capacity; 1 less these is the miss-ratio curve."""
    return np.searchsorted(np.sort(reuse_distances(trace)), capacities, side="right") / len(trace)


def _cachetools(kind: type[cachetools.Cache]) -> Callable[[int, random.Random], Hit]:
    def made(capacity: int, rng: random.Random) -> Hit:
        cache = kind(capacity)

        def hit(id: int) -> bool:
            try:
                return cache[id]
            except KeyError:
                cache[id] = True
                return False

        return hit

    return made


def _random(capacity: int, rng: random.Random) -> Hit:
    """Evict any key."""
    held, places = [], {}

    def hit(id: int) -> bool:
        if id in places:
            return True
        if len(held) < capacity:
            held.append(id)
            places[id] = len(held) - 1
        else:
            place = int(rng.random() * capacity)
            del places[held[place]]
            held[place], places[id] = id, place
        return False

    return hit


def _sieve(capacity: int, rng: random.Random) -> Hit:
    """Keep a queue in order of arrival and evict at a hand that spares, once, what was hit (Zhang et al., NSDI 2024)."""
    seen, older, newer = {}, {}, {}  # id: hit since the hand passed; its neighbours in the queue
    head = tail = hand = None

    def hit(id: int) -> bool:
        nonlocal head, tail, hand
        if id in seen:
            seen[id] = True
            return True
        if len(seen) == capacity:
            out = tail if hand is None else hand
            while seen[out]:
                seen[out], out = False, newer[out] if newer[out] is not None else tail
            before, after = older.pop(out), newer.pop(out)
            hand = after
            del seen[out]
            if before is None:
                tail = after
            else:
                newer[before] = after
            if after is None:
                head = before
            else:
                older[after] = before
        seen[id], older[id], newer[id] = False, head, None
        if head is None:
            tail = id
        else:
            newer[head] = id
        head = id
        return False

    return hit


def _s3_fifo(capacity: int, rng: random.Random) -> Hit:
    """Try new keys in a small queue, a tenth of the room, and remember who left it (Yang et al., SOSP 2023)."""
    small, main, ghosts = deque(), deque(), OrderedDict()
    few, hits = max(1, capacity // 10), {}  # hits: of each key held, at most 3

    def evict() -> None:
        while True:
            if len(small) >= few or not main:
                id = small.popleft()
                if hits[id] > 1:
                    hits[id] = 0
                    main.append(id)
                    continue
                ghosts[id] = True
                if len(ghosts) > capacity - few:
                    ghosts.popitem(last=False)
            else:
                id = main.popleft()
                if hits[id]:
                    hits[id] -= 1
                    main.append(id)
                    continue
            del hits[id]
            return

    def hit(id: int) -> bool:
        if id in hits:
            hits[id] = min(3, hits[id] + 1)
            return True
        queue = main if ghosts.pop(id, False) else small
        if len(hits) == capacity:
            evict()
        queue.append(id)
        hits[id] = 0
        return False

    return hit


def _arc(capacity: int, rng: random.Random) -> Hit:
    """Divide the room between what was asked for once and what was asked for again, by what each division would have
    kept (Megiddo and Modha, FAST 2003).
    """
    once, again, gone_once, gone_again = (OrderedDict() for _ in range(4))
    wanted = 0.0  # keys in ``once``

    def replace(id: int) -> None:
        if once and (len(once) > wanted or (id in gone_again and len(once) == wanted)):
            gone_once[once.popitem(last=False)[0]] = True
        else:
            gone_again[again.popitem(last=False)[0]] = True

    def hit(id: int) -> bool:
        nonlocal wanted
        if id in once or id in again:
            once.pop(id, None)
            again[id] = True
            again.move_to_end(id)
            return True
        if id in gone_once:
            wanted = min(capacity, wanted + max(1.0, len(gone_again) / len(gone_once)))
            replace(id)
            del gone_once[id]
            again[id] = True
        elif id in gone_again:
            wanted = max(0.0, wanted - max(1.0, len(gone_once) / len(gone_again)))
            replace(id)
            del gone_again[id]
            again[id] = True
        else:
            if len(once) + len(gone_once) == capacity:
                if len(once) < capacity:
                    gone_once.popitem(last=False)
                    replace(id)
                else:
                    once.popitem(last=False)
            elif (held := len(once) + len(again)) + len(gone_once) + len(gone_again) >= capacity:
                if held + len(gone_once) + len(gone_again) == 2 * capacity:
                    gone_again.popitem(last=False)
                if held == capacity:
                    replace(id)
            once[id] = True
        return False

    return hit


def _w_tinylfu(capacity: int, rng: random.Random) -> Hit:
    """Let a key past a small window only if it was lately asked for more often than whom it would replace.

    A window of a hundredth of the room, then a segmented LRU; counts are halved every 10 * capacity requests (Einziger,
    Friedman and Manes, 2017). The counts are exact, where the paper's are a sketch.
    """
    window, probation, protected = (OrderedDict() for _ in range(3))
    few = max(1, capacity // 100)
    most, counts, asked = int(0.8 * (capacity - few)), Counter(), 0

    def promote(id: int) -> None:
        del probation[id]
        protected[id] = True
        if len(protected) > most:
            probation[protected.popitem(last=False)[0]] = True

    def admit() -> None:
        id, _ = window.popitem(last=False)
        if len(probation) + len(protected) < capacity - few:
            probation[id] = True
            return
        victims = probation or protected
        if victims and counts[id] > counts[victim := next(iter(victims))]:
            del victims[victim]
            probation[id] = True

    def hit(id: int) -> bool:
        nonlocal asked, counts
        asked += 1
        counts[id] += 1
        if asked % (10 * capacity) == 0:
            counts = Counter({id: count // 2 for id, count in counts.items() if count > 1})
        for part in (window, protected):
            if id in part:
                part.move_to_end(id)
                return True
        if id in probation:
            promote(id)
            return True
        window[id] = True
        if len(window) > few:
            admit()
        return False

    return hit


def _belady(trace: Ids, capacity: int) -> np.ndarray:
    """Drop, or do not even keep, the key whose next request is farthest away (Belady, 1966): no cache has more hits."""
    n, hits, held, farthest = len(trace), np.zeros(len(trace), bool), {}, []
    for place, (id, following) in enumerate(zip(np.asarray(trace).tolist(), _next_places(trace), strict=True)):
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
    """Return where each request's key is asked for next; for a last time, places beyond the end, each its own."""
    following, seen = [], {}
    for place, id in zip(range(len(trace) - 1, -1, -1), np.asarray(trace)[::-1].tolist(), strict=True):
        following.append(seen.get(id, len(trace) + place))
        seen[id] = place
    return reversed(following)


POLICIES: dict[str, Callable[[int, random.Random], Hit]] = {
    "LRU": _cachetools(cachetools.LRUCache),
    "LFU": _cachetools(cachetools.LFUCache),
    "FIFO": _cachetools(cachetools.FIFOCache),
    "random": _random,
    "SIEVE": _sieve,
    "S3-FIFO": _s3_fifo,
    "ARC": _arc,
    "W-TinyLFU": _w_tinylfu,
}
