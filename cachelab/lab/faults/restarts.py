"""A server dies and comes back: empty, warmed by what was popular, or with what it had kept itself.

The cache of each variant is filled by the same reads. Then a snapshot is taken, where one is kept;
rows change, each with its `invalidate`; the server is killed; more rows change, whose deletes
nobody sends again, since the program that changed them has gone too; and the server is started
anew. What readers get from then on is counted.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

import cachelab as cl
from cachelab import _check, smart
from cachelab.cache.stats import Tally
from cachelab.lab.hits import workload

READERS = 16
LOAD = 0.005  # seconds that the database takes
TTL = 120.0  # seconds: longer than a run
PATIENCE = 5.0  # seconds that a call may take


@dataclass(frozen=True)
class _Kind:
    config: dict[str, Any]
    has_snapshot: bool = False
    is_warmed: bool = False


KINDS = {
    "cold": _Kind({}),
    "warmed": _Kind({}, is_warmed=True),
    "snapshot": _Kind({}, has_snapshot=True),  # as `save` makes one, every few minutes
    "log": _Kind({"appendonly": True}),
}


class _Rows:
    """The database: values by id, in no time at first."""

    def __init__(self, keys: int):
        self.values = {f"row-{number}": "1" for number in range(keys)}
        self.seconds = 0.0
        self.loaded = Tally()

    def load(self, id: str) -> str | None:
        value = self.values.get(id)
        time.sleep(self.seconds)
        self.loaded.one()
        return value

    def change(self, ids: Iterable[str]) -> None:
        for id in ids:
            self.values[id] = str(int(self.values[id]) + 1)


def after_restart(
    variants: Iterable[str] = tuple(KINDS),
    seconds: float = 4.0,
    rate: float = 500.0,
    keys: int = 1000,
    changed: float = 0.1,
    warming: float = 200.0,
    step: float = 0.25,
    seed: int = 0,
) -> pd.DataFrame:
    """Restart a server of each variant under readers, and count what they get.

    Args:
        variants: Among "cold", "warmed" (by `cachelab.smart.warm`, beside the readers), "snapshot"
            and "log" (the append-only file).
        seconds: How long readers read after the restart.
        rate: Reads a second, by Zipf's law.
        keys: Rows.
        changed: The share of them that changes after the snapshot, and again while the server is
            away.
        warming: Loads a second of the warming.
        step: Seconds from row to row of the frame.
        seed: Of the reads and of what changes.

    Returns:
        The tidy frame (variant, seconds since the restart, at a step's end; and of that step reads,
        hits, hit_rate, loads, warmed: the loads of these that the warming made; stale: reads
        answered with a value that the row no longer has).
    """
    names = [_check.choice("variant", name, tuple(KINDS)) for name in variants]
    _check.whole("the number of variants", len(names), least=1)
    seconds = _check.number("seconds", seconds, above=0)
    step = _check.number("step", step, above=0, high=seconds)
    rate = _check.number("rate", rate, above=0)
    ids = workload.zipf(round(2 * rate * seconds) + 10 * keys, keys, 0.9, seed)
    changes = np.random.default_rng([seed, 1]).permutation(keys)
    count = round(_check.number("changed", changed, high=0.5) * keys)
    groups = [[f"row-{id}" for id in part] for part in (changes[:count], changes[-count:])]
    reads = [f"row-{id}" for id in ids]
    frames = []
    for name in names:
        run = _Run(KINDS[name], _Rows(keys), reads, groups if count else [[], []])
        frame = run.frame(seconds, rate, step, _check.number("warming", warming, above=0))
        frame.insert(0, "variant", name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


class _Run:
    """One variant, from its filling to its last read."""

    def __init__(self, kind: _Kind, rows: _Rows, reads: list[str], changes: list[list[str]]):
        self._kind, self._rows, self._changes = kind, rows, changes
        self._before, self._after = reads[: 10 * len(rows.values)], reads[10 * len(rows.values) :]
        self._log = smart.PopularityLog(size=len(rows.values))
        self._stale = Tally()

    def frame(self, seconds: float, rate: float, step: float, warming: float) -> pd.DataFrame:
        with cl.Server(**self._kind.config) as server:
            client = cl.connect(server.url, timeout=PATIENCE)
            users: cl.CacheAside[str] = cl.CacheAside(client, self._rows.load, ttl=TTL)
            for id in self._before:
                self._log.read(id)
            users.warm(dict.fromkeys(self._before))
            self._rows.seconds = LOAD
            if self._kind.has_snapshot:
                client.save()
            self._rows.change(self._changes[0])
            for id in self._changes[0]:
                users.invalidate(id)
            server.kill()
            self._rows.change(self._changes[1])
            server.restart()
            client.connection_pool.disconnect()
            return self._read(users, seconds, rate, step, warming)

    def _read(
        self, users: cl.CacheAside[str], seconds: float, rate: float, step: float, warming: float
    ) -> pd.DataFrame:
        start, numbers = time.perf_counter(), itertools.count()
        over = threading.Event()
        reader = partial(self._reader, users.get, numbers, start, rate, over)
        work: list[Callable[[], object]] = [reader] * READERS
        if self._kind.is_warmed:
            count = len(self._rows.values)
            work.append(partial(smart.warm, users, self._log, count, warming, seconds))
        threads = [threading.Thread(target=one) for one in work]
        rows, before = [], self._counts(users)
        for thread in threads:
            thread.start()
        try:
            for end in np.arange(step, seconds + step / 2, step):
                over.wait(max(0.0, start + end - time.perf_counter()))
                after = self._counts(users)
                row = {name: after[name] - before[name] for name in after}
                rate_now = row["hits"] / row["reads"] if row["reads"] else None
                rows.append({"seconds": float(end), **row, "hit_rate": rate_now})
                before = after
        finally:
            over.set()
            for thread in threads:
                thread.join()
        return pd.DataFrame(rows)

    def _reader(
        self,
        get: Callable[[str], str | None],
        numbers: "itertools.count[int]",
        start: float,
        rate: float,
        over: threading.Event,
    ) -> None:
        for number in numbers:  # all readers share them, so that each read is one reader's
            if over.wait(max(0.0, start + number / rate - time.perf_counter())):
                return
            id = self._after[number % len(self._after)]
            if get(id) != self._rows.values[id]:
                self._stale.one()

    def _counts(self, users: cl.CacheAside[str]) -> dict[str, int]:
        stats, warmed = users.stats, self._log.stats.warmed
        return {
            "reads": stats.hits + stats.misses,
            "hits": stats.hits,
            "loads": int(self._rows.loaded),
            "warmed": warmed,
            "stale": int(self._stale),
        }
