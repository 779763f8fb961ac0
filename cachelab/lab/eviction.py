"""The caches that policies simulates: each is made for a capacity and says of one request after the other whether it hits.

LRU, LFU and FIFO are cachetools'; the others are written here, each from its paper.
"""

import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

import cachetools

Hit = Callable[[int], bool]  # asks for a key, puts it on a miss, and says whether it was there


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
