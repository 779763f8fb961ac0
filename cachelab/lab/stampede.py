"""One workload for every cure of a stampede: what it did to the database and to its readers, measured and simulated."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from heapq import heapify, heappop, heappush
from itertools import count, repeat
from math import log

import pandas as pd
from matplotlib.axes import Axes

from cachelab import _check
from cachelab.lab import charts
from cachelab.lab.looks import written

Load = Callable[[str], str | None]
Make = Callable[[Load], Load]

COPIES, READERS = 4, 10  # copies of the application, readers in each
TTL, LOAD = 0.25, 0.02  # seconds that a value lives, and that a load takes
CONNECTIONS = 2  # loads that the database does at once; more queue
PAUSE = 0.025  # mean seconds between two reads of one reader
TECHNIQUES = ("nothing", "single-flight", "lease", "XFetch", "stale-while-revalidate")  # that can be simulated
COLUMNS = ["technique", "event", "began", "ended", "seconds", "age"]


def run(technique: str, make: Make, load: Load, seconds: float, *, copies: int = COPIES, readers: int = READERS,
        pause: float = PAUSE, dies: int = 0) -> pd.DataFrame:  # fmt: skip
    """Let readers read one hot key for some seconds and return the tidy frame (technique, event, began, ended, seconds, age).

    make: the technique; called with a load once for each copy of the application, it returns that copy's ``get``. Copies
    share nothing but what the technique keeps in Redis. load: what a load waits for, such as ``UserDatabase.get``; the value
    that readers get is the moment it was loaded. Each reader asks, waits for the answer, pauses about ``pause`` seconds, and
    asks again. The key is read before the run begins. dies: number of the load, from 1, that never comes back, as if
    its process had been killed; it is let go when the run is over, so that whoever waits for it waits no longer.

    event: "read" or "load". began, ended: seconds since the start. age: seconds since the answer was loaded (reads only).
    """
    rows, lock, over = [], threading.Lock(), threading.Event()
    start, numbers = 0.0, repeat(None)  # loads before the start have no number

    def loaded(id: str) -> str:
        began, number = time.perf_counter(), next(numbers)
        if number == dies:
            over.wait()
        load(id)
        ended = time.perf_counter()
        with lock:
            rows.append(("load", began, ended, None))
        return repr(ended)

    def read_on(get: Load, seed: int) -> None:
        draw = random.Random(seed)
        while (began := time.perf_counter()) < start + seconds:
            value, ended = get("hot"), time.perf_counter()
            with lock:
                rows.append(("read", began, ended, ended - float(value)))
            time.sleep(draw.expovariate(1 / pause))

    gets = [make(loaded) for _ in range(copies)] * readers
    gets[0]("hot")
    _together([lambda get=get: get("hot") for get in gets])  # opens the connections
    rows.clear()
    start, numbers = time.perf_counter(), count(1)
    ending = threading.Timer(seconds, over.set)
    ending.start()
    _together([lambda get=get, seed=seed: read_on(get, seed) for seed, get in enumerate(gets)])
    ending.join()
    df = pd.DataFrame(rows, columns=["event", "began", "ended", "age"])
    df[["began", "ended"]] -= start
    return df.assign(technique=technique, seconds=df["ended"] - df["began"])[COLUMNS].sort_values("began")


def crowd(make: Make, readers: int = 200, copies: int = COPIES, seconds: float = 0.4) -> int:
    """Return how many loads begin when many readers ask for one cold key at once.

    The first load, and any that begins beside it, takes until ``seconds`` after the first began.
    """
    loads, go = [], threading.Event()

    def load(id: str) -> str:
        loads.append(id)
        if len(loads) == 1:
            threading.Timer(seconds, go.set).start()
        go.wait()
        return "1"

    gets = [make(load) for _ in range(copies)] * (readers // copies)
    _together([lambda get=get: get("cold") for get in gets])
    return len(loads)


def under_way(df: pd.DataFrame) -> pd.DataFrame:
    """Return (at, loads): how many loads run from each moment on; ``df`` is a frame of `run` or `simulate`."""
    loads = df[df["event"] == "load"]
    ends = [(0.0, 0), *((at, 1) for at in loads["began"]), *((at, -1) for at in loads["ended"])]
    changes = pd.DataFrame(sorted(ends), columns=["at", "loads"])
    return changes.assign(loads=changes["loads"].cumsum())


def an_expiry(df: pd.DataFrame) -> float:
    """Return how many loads one expiry starts, on average; ``df`` is a frame of `run` or `simulate`.

    A load that begins half a TTL or more after the one before it belongs to the next expiry.
    """
    began = df.loc[df["event"] == "load", "began"].sort_values()
    return len(began) / (1 + int((began.diff() >= TTL / 2).sum()))


def ladder(runs: Mapping[str, pd.DataFrame], seconds: float) -> pd.DataFrame:
    """Return a row for each run: loads an expiry, a minute, at once; reads; p50 and p99 in ms; oldest answer in seconds."""
    rows = {}
    for technique, df in runs.items():
        reads, loads, at_once = df[df["event"] == "read"], df[df["event"] == "load"], under_way(df)["loads"].max()
        times = 1000 * reads["seconds"].quantile([0.5, 0.99])
        counts = an_expiry(df), 60 * len(loads) / seconds, at_once, len(reads)
        rows[technique] = (*counts, *times, reads["age"].max())
    columns = ["loads an expiry", "loads per minute", "loads at once", "reads", "p50 ms", "p99 ms", "oldest answer s"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def chart(df: pd.DataFrame, seconds: float, name: str | None = None) -> Axes:
    """Draw a run: loads under way above, the time of each read below; the same axes for every run of ``seconds``."""
    (top, bottom), reads = charts.panels(2, name=name, sharex=True), df[df["event"] == "read"]
    loads = f"{an_expiry(df):.1f}".removesuffix(".0")
    loads += " load an expiry" if loads == "1" else " loads an expiry"
    finding = f"{df['technique'].iloc[0]}: {loads}, {under_way(df)['loads'].max()} at once"
    look = {"ylabel": "loads at once", "ylim": (0, COPIES * READERS + 2), "xlabel": "", "roles": "database"}
    charts.timeline(under_way(df), "at", "loads", title=finding, ax=top, xlim=(0, seconds), steps=True, **look)
    finding = f"99 of 100 reads take at most {written(reads['seconds'].quantile(0.99), 's')}"
    look = {"ylabel": "time of a read", "ylim": (2e-5, 10), "xlabel": "seconds since the start", "logy": True}
    look |= {"note": f"a dot a read; n = {len(reads):,}", "roles": "cache", "xlim": (0, seconds)}
    dots = reads[["began", "seconds"]].round(6)  # all that can be seen: they are kept beside the picture
    return charts.timeline(dots, "began", "seconds", title=finding, ax=bottom, **look)


def simulate(technique: str, readers: int = COPIES * READERS, load: float = LOAD, seconds: float = 6.0, *,
             copies: int = COPIES, ttl: float = TTL, connections: int = CONNECTIONS, pause: float = PAUSE,
             beta: float = 1.0, seed: int = 0) -> pd.DataFrame:  # fmt: skip
    """Return the frame of `run` as theory has it, without threads, Redis or a clock.

    technique: one of TECHNIQUES; single-flight is one load a copy, a lease one load. A hit takes no time; a load waits for one of the database's connections, then takes ``load`` seconds.
    """
    _check.choice("technique", technique, TECHNIQUES)
    draw, free, rows = random.Random(seed), [0.0] * connections, []
    asks = [(draw.expovariate(1 / pause), reader) for reader in range(readers)]
    heapify(asks)
    ends, flights, loaded = [], {}, 0.0
    while (ask := heappop(asks))[0] < seconds:
        at, reader = ask
        while ends and ends[0] <= at:
            loaded = heappop(ends)
        left, done = loaded + ttl - at, at
        early = technique == "XFetch" and -load * beta * log(1 - draw.random()) >= left
        if left <= 0 or early:
            whose = {"single-flight": reader % copies, "nothing": len(rows), "XFetch": len(rows)}.get(technique, 0)
            if flights.get(whose, -1.0) <= at:
                flights[whose] = max(at, heappop(free)) + load
                heappush(free, flights[whose])
                heappush(ends, flights[whose])
                rows.append((technique, "load", at, flights[whose], flights[whose] - at, None))
            if technique != "stale-while-revalidate":
                done = flights[whose]
        rows.append((technique, "read", at, done, done - at, done - max(loaded, done if done > at else 0.0)))
        heappush(asks, (done + draw.expovariate(1 / pause), reader))
    return pd.DataFrame(rows, columns=COLUMNS)


def _together(calls: list[Callable[[], object]]) -> None:
    """Make the calls at once, a thread each; raise the first error that one of them raised."""
    start = threading.Barrier(len(calls))
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(lambda call: (start.wait(), call()), calls))
