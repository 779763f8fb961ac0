"""The caches that policies simulate: made for a capacity, each says of every request if it hits.

LRU, LFU and FIFO are cachetools'; the others are written here, each from its paper.
"""

import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

import cachetools

Hit = Callable[[int], bool]  # asks for a key, puts it on a miss, and says whether it was there
Queue = OrderedDict[int, bool]  # of keys, the oldest first

HIGHEST = 15  # a count of W-TinyLFU: Caffeine's counters have four bits


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
    held: list[int] = []
    places: dict[int, int] = {}

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
    """Evict, of a queue in order of arrival, at a hand that spares once what was hit.

    Zhang et al., NSDI 2024.
    """
    seen: dict[int, bool] = {}  # id: hit since the hand passed
    older: dict[int, int | None] = {}  # its neighbours in the queue
    newer: dict[int, int | None] = {}
    head: int | None = None
    tail: int | None = None
    hand: int | None = None

    def evict() -> None:
        nonlocal head, tail, hand
        out = tail if hand is None else hand
        while out is not None and seen[out]:
            seen[out] = False
            out = newer[out] if newer[out] is not None else tail
        assert out is not None  # the queue is full
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

    def hit(id: int) -> bool:
        nonlocal head, tail
        if id in seen:
            seen[id] = True
            return True
        if len(seen) == capacity:
            evict()
        seen[id], older[id], newer[id] = False, head, None
        if head is None:
            tail = id
        else:
            newer[head] = id
        head = id
        return False

    return hit


def _s3_fifo(capacity: int, rng: random.Random) -> Hit:
    """Try new keys in a small queue, a tenth of the room, and remember who left it.

    Yang et al., SOSP 2023.
    """
    small: deque[int] = deque()
    main: deque[int] = deque()
    ghosts: Queue = OrderedDict()
    hits: dict[int, int] = {}  # of each key held, at most 3
    few = max(1, capacity // 10)

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
    """Divide the room between what was asked for once and what was asked for again.

    How, is told by what each division would have kept (Megiddo and Modha, FAST 2003).
    """
    once: Queue = OrderedDict()
    again: Queue = OrderedDict()
    gone_once: Queue = OrderedDict()
    gone_again: Queue = OrderedDict()
    wanted = 0.0  # keys in ``once``

    def replace(id: int) -> None:
        if once and (len(once) > wanted or (id in gone_again and len(once) == wanted)):
            gone_once[once.popitem(last=False)[0]] = True
        else:
            gone_again[again.popitem(last=False)[0]] = True

    def make_room(id: int) -> None:
        if len(once) + len(gone_once) == capacity:
            if len(once) < capacity:
                gone_once.popitem(last=False)
                replace(id)
            else:
                once.popitem(last=False)
            return
        held = len(once) + len(again)
        known = held + len(gone_once) + len(gone_again)
        if known == 2 * capacity:
            gone_again.popitem(last=False)
        if held == capacity:
            replace(id)

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
            make_room(id)
            once[id] = True
        return False

    return hit


class _Recent:
    """How often keys were asked for lately: no count above ``highest``, all halved in time."""

    def __init__(self, sample: int, highest: float) -> None:
        self.sample = sample  # requests after which counts are halved
        self.highest = highest
        self.asked = 0
        self.counts: Counter[int] = Counter()

    def __getitem__(self, id: int) -> int:
        return self.counts[id]

    def add(self, id: int) -> None:
        self.asked += 1
        if self.counts[id] < self.highest:
            self.counts[id] += 1
        if self.asked % self.sample == 0:
            kept = {id: count // 2 for id, count in self.counts.items() if count > 1}
            self.counts = Counter(kept)


def _w_tinylfu(capacity: int, rng: random.Random, highest: float = HIGHEST) -> Hit:
    """Let a key past a small window only if it was lately asked for more often than its victim.

    A window of a hundredth of the room, then a segmented LRU; counts are halved every 10 *
    capacity requests (Einziger, Friedman and Manes, 2017). The counts are exact, where the paper's
    are a sketch, and none is more than ``highest``: the paper stops at sample / capacity, which is
    10, Caffeine at 15. Without that, yesterday's favourites keep out today's for many halvings.
    """
    window: Queue = OrderedDict()
    probation: Queue = OrderedDict()
    protected: Queue = OrderedDict()
    counts = _Recent(10 * capacity, highest)
    few = max(1, capacity // 100)
    most = int(0.8 * (capacity - few))

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
        counts.add(id)
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
