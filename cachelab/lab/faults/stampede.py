"""One workload for every cure of a stampede: what database and readers saw of it.

Measured, or simulated.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count, repeat
from math import log

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cachelab import _check
from cachelab.lab.draw import charts
from cachelab.lab.draw.units import written
from cachelab.lab.measure import callers

Load = Callable[[str], str | None]
Make = Callable[[Load], Load]

COPIES, READERS = 4, 10  # copies of the application, readers in each
TTL, LOAD = 0.25, 0.02  # seconds that a value lives, and that a load takes
CONNECTIONS = 2  # loads that the database does at once; more queue
PAUSE = 0.025  # mean seconds between two reads of one reader
PATIENCE = 60.0  # seconds that readers may take longer than they read
# That can be simulated.
TECHNIQUES = ("nothing", "single-flight", "lease", "XFetch", "stale-while-revalidate")
COLUMNS = ["technique", "event", "began", "ended", "seconds", "age"]


def run(
    technique: str,
    make: Make,
    load: Load,
    seconds: float,
    *,
    copies: int = COPIES,
    readers: int = READERS,
    pause: float = PAUSE,
    dies: int = 0,
) -> pd.DataFrame:
    """Let readers read one hot key for some seconds, in a closed loop.

    Each reader asks, waits for the answer, pauses, and asks again; so who waits long asks less, and
    percentiles over reads make a bad technique look better than it is. The key is read before the
    run begins. The value that readers get is the moment it was loaded.

    Args:
        technique: What it is called.
        make: The technique: called with a load once for each copy of the application, it returns
            that copy's ``get``. Copies share nothing but what the technique keeps in Redis.
        load: What a load waits for, such as ``UserDatabase.get``.
        seconds: How long they read.
        copies: How many copies of the application there are.
        readers: How many readers there are in each.
        pause: Mean seconds between two reads of one reader.
        dies: Number of the load, from 1, that never comes back, as if its process had been
            killed; it is let go when the run is over, so that nobody waits any longer.

    Returns:
        The tidy frame (technique, event, began, ended, seconds, age). event: "read" or "load".
        began, ended: seconds since the start. age: seconds since the answer was loaded (reads).

    Raises:
        TimeoutError: Some readers still wait a minute after the end.
    """
    seconds = _check.number("seconds", seconds, above=0, high=_check.LONGEST_WAIT)
    copies = _check.whole("copies", copies, least=1)
    readers = _check.whole("readers", readers, least=1)
    pause = _check.number("pause", pause, above=0)
    dies = _check.whole("dies", dies, least=0)
    rows: list[tuple[str, float, float, float | None]] = []
    lock, over = threading.Lock(), threading.Event()
    start = 0.0
    numbers: Iterator[int | None] = repeat(None)  # loads before the start have no number

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
                rows.append(("read", began, ended, ended - float(value or "nan")))
            time.sleep(draw.expovariate(1 / pause))

    gets = [make(loaded) for _ in range(copies)] * readers
    gets[0]("hot")
    _together([partial(get, "hot") for get in gets])  # opens the connections
    rows.clear()
    start, numbers = time.perf_counter(), count(1)
    ending = threading.Timer(seconds, over.set)
    ending.start()
    _together([partial(read_on, get, seed) for seed, get in enumerate(gets)], seconds)
    ending.join()
    df = pd.DataFrame(rows, columns=["event", "began", "ended", "age"])
    df[["began", "ended"]] -= start
    df = df.assign(technique=technique, seconds=df["ended"] - df["began"])
    return df[COLUMNS].sort_values("began")


def crowd(make: Make, readers: int = 200, copies: int = COPIES, seconds: float = 0.4) -> int:
    """Return how many loads begin when many readers ask for one cold key at once.

    The first load, and any that begins beside it, takes until ``seconds`` after the first began.
    """
    copies = _check.whole("copies", copies, least=1)
    readers = _check.whole("readers", readers, least=copies)
    seconds = _check.number("seconds", seconds, high=_check.LONGEST_WAIT)
    go = threading.Event()
    loads: list[str] = []

    def load(id: str) -> str:
        loads.append(id)
        if len(loads) == 1:
            threading.Timer(seconds, go.set).start()
        go.wait()
        return "1"

    gets = [make(load) for _ in range(copies)] * (readers // copies)
    _together([partial(get, "cold") for get in gets], seconds)
    return len(loads)


def outcomes(
    make: Make,
    error: type[BaseException],
    readers: int = 10,
    seconds: float = 0.2,
    patience: float = 1.0,
) -> list[str]:
    """Return what each of some readers of a cold key gets whose loads raise an error.

    The first load raises ``seconds`` after the others have come. What a reader gets is the name of
    an exception's type, the text of a value, or "no answer" after ``patience`` seconds more.
    """
    readers = _check.whole("readers", readers, least=1)
    seconds = _check.number("seconds", seconds, high=_check.LONGEST_WAIT)
    patience = _check.number("patience", patience, high=_check.LONGEST_WAIT)
    entered, go = threading.Event(), threading.Event()
    seen = ["no answer"] * readers

    def load(id: str) -> str:
        entered.set()
        go.wait(seconds + patience)
        raise error

    def read(reader: int) -> None:
        try:
            seen[reader] = str(get("cold"))
        except BaseException as raised:  # whatever reaches a reader is what is asked
            seen[reader] = type(raised).__name__

    get = make(load)
    threads = [threading.Thread(target=read, args=[n], daemon=True) for n in range(readers)]
    for thread in threads:  # daemons, since one that waits for ever must not keep the process
        thread.start()
        entered.wait(patience)
    time.sleep(seconds)  # until all wait for the load, however they do
    go.set()
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return seen.copy()


def under_way(df: pd.DataFrame) -> pd.DataFrame:
    """Return (at, loads): how many loads run from each moment on.

    df: a frame of `run` or `simulate`.
    """
    loads = df[df["event"] == "load"]
    ends = [(0.0, 0), *((at, 1) for at in loads["began"]), *((at, -1) for at in loads["ended"])]
    changes = pd.DataFrame(sorted(ends), columns=["at", "loads"])
    return changes.assign(loads=changes["loads"].cumsum())


def an_expiry(df: pd.DataFrame) -> float:
    """Return how many loads one expiry starts, on average.

    A load that begins half a TTL or more after the one before it belongs to the next expiry.
    df: a frame of `run` or `simulate`.
    """
    each = _expiries(df)
    return float(each.mean()) if len(each) else 0.0


def stuck(df: pd.DataFrame, seconds: float) -> int:
    """Return how many reads of a run of ``seconds`` were still waiting when it was over."""
    waited = (df["seconds"] > 4 * PAUSE) & (df["ended"] >= seconds)
    return int((waited & (df["event"] == "read")).sum())


def waited_for(df: pd.DataFrame) -> int:
    """Return how many loads of a run some read waited for from their begin to their end."""
    reads = df[df["event"] == "read"]
    loads = df[df["event"] == "load"]
    spans = zip(loads["began"], loads["ended"], strict=True)
    return sum(
        bool(((reads["began"] <= began) & (reads["ended"] >= ended)).any())
        for began, ended in spans
    )


def ladder(
    runs: Mapping[str, pd.DataFrame], seconds: float, readers: int = COPIES * READERS
) -> pd.DataFrame:
    """Return a row for each run of ``seconds``: its loads, and what its readers had of them.

    Columns: loads an expiry; loads per minute, with _low and _high two standard errors away, as
    expiries differ in their loads; loads at once; reads; p50 and p99 in ms; the share of their time
    that readers wait, which no closed loop makes look better; reads that still wait at the end;
    oldest answer in seconds.
    """
    rows = {}
    for technique, df in runs.items():
        reads, each = df[df["event"] == "read"], _expiries(df)
        times = 1000 * reads["seconds"].quantile([0.5, 0.99])
        waited = (reads["ended"].clip(upper=seconds) - reads["began"]).sum()
        error = 2 * each.std() / (each.mean() * len(each) ** 0.5) if len(each) > 1 else 0.0
        rate = 60 * each.sum() / seconds
        rows[technique] = {
            "loads an expiry": an_expiry(df),
            "loads per minute": rate,
            "loads per minute_low": rate * max(0.1, 1 - error),
            "loads per minute_high": rate * (1 + error),
            "loads at once": under_way(df)["loads"].max(),
            "reads": len(reads),
            "p50 ms": times[0.5],
            "p99 ms": times[0.99],
            "readers wait %": 100 * waited / (readers * seconds),
            "waiting at the end": stuck(df, seconds),
            "oldest answer s": reads["age"].max(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def chart(
    df: pd.DataFrame, seconds: float, name: str | None = None, *, has_died: bool = False
) -> Axes:
    """Draw a run of ``seconds``: loads under way above, the time of each read below.

    All runs have the same axes. has_died: A load of it never came back, so that what counts is
    who waits for it.
    """
    top, bottom = charts.panels(2, name=name, sharex=True)
    loads = f"{an_expiry(df):.1f}".removesuffix(".0")
    noun = "load" if loads == "1" else "loads"
    until = under_way(df).query("at <= @seconds")
    at_once = pd.concat([until, until.tail(1).assign(at=seconds)])
    found = f"{loads} {noun} an expiry, {at_once['loads'].max()} at once"
    if has_died:
        waiting = stuck(df, seconds)
        verb = "waits" if waiting == 1 else "wait"
        found = f"{waiting} of {COPIES * READERS} readers {verb} to the end"
    charts.timeline(
        at_once,
        "at",
        "loads",
        title=f"{df['technique'].iloc[0]}: {found}",
        ax=top,
        xlim=(0, seconds),
        steps=True,
        ylabel="loads at once",
        ylim=(0, COPIES * READERS + 2),
        xlabel="",
        roles="database",
    )
    reads = df[df["event"] == "read"]
    most = written(reads["seconds"].quantile(0.99), "s")
    return charts.timeline(
        reads[["began", "seconds"]].round(6),  # all that can be seen: it is kept with the picture
        "began",
        "seconds",
        title=f"99 of 100 reads take at most {most}",
        ax=bottom,
        ylabel="time of a read",
        ylim=(2e-5, 10),
        xlabel="seconds since the start",
        logy=True,
        note=f"a dot a read; n = {len(reads):,}",
        roles="cache",
        xlim=(0, seconds),
    )


def ladder_chart(
    table: pd.DataFrame, title: str, bad: Sequence[str] = (), name: str | None = None
) -> Axes:
    """Draw the loads per minute of a `ladder`, best on top.

    Args:
        table: What `ladder` returned.
        title: What it shows.
        bad: The techniques under which each reader loads; they are orange squares.
        name: Under which the figure is kept.
    """
    rows = table.rename_axis("technique").reset_index()
    return charts.ranking(
        rows,
        "loads per minute",
        "technique",
        low="loads per minute_low",
        high="loads per minute_high",
        title=title,
        note="whiskers: two standard errors of an expiry's loads; orange squares: all load",
        logx=True,
        roles=dict.fromkeys(rows["technique"], "cache") | dict.fromkeys(bad, "database"),
        name=name,
    )


def early_loads(
    rates: Sequence[float],
    betas: Sequence[float],
    windows: int = 1000,
    *,
    load: float = 0.4,
    ttl: float = 15.0,
    seed: int = 8,
) -> pd.DataFrame:
    """Simulate which reads around an expiry XFetch makes load, when reads come at random.

    Args:
        rates: Reads a second.
        betas: How early it loads (Vattani et al., 2015).
        windows: How many expiries to simulate for each rate and beta.
        load: Seconds that a load takes.
        ttl: Seconds before and after the expiry in which reads come.
        seed: Of all draws.

    Returns:
        DataFrame(reads, beta, loads, used, seconds early), means of the windows. loads: how many
        begin before the first one ends. used: the chances of all reads until the first load,
        added up. seconds early: how long before the expiry the first one begins.
    """
    rates = [_check.number("rates", rate, above=0) for rate in rates]
    betas = [_check.number("betas", beta, above=0) for beta in betas]
    windows = _check.whole("windows", windows, least=1)
    draw, rows = np.random.default_rng(seed), []
    for rate, beta in [(rate, beta) for rate in rates for beta in betas]:
        seen = [_window(draw, rate, beta * load, load, ttl) for _ in range(windows)]
        rows.append((f"{rate:g} a second", beta, *np.mean(seen, axis=0)))
    return pd.DataFrame(rows, columns=["reads", "beta", "loads", "used", "seconds early"])


def simulate(
    technique: str,
    readers: int = COPIES * READERS,
    load: float = LOAD,
    seconds: float = 6.0,
    *,
    copies: int = COPIES,
    ttl: float = TTL,
    connections: int = CONNECTIONS,
    pause: float = PAUSE,
    beta: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the frame of `run` as theory has it, without threads, Redis or a clock.

    A hit takes no time; a load waits for one of the database's connections, then takes its time.

    Args:
        technique: One of TECHNIQUES; single-flight is one load a copy, a lease one load.
        readers: How many there are in all.
        load: Seconds that a load takes.
        seconds: How long they read.
        copies: How many copies of the application share the readers.
        ttl: Seconds that a value lives.
        connections: Loads that the database does at once.
        pause: Mean seconds between two reads of one reader.
        beta: How early XFetch loads: above 1 earlier (Vattani et al., 2015).
        seed: Of the moments at which readers read.
    """
    _check.choice("technique", technique, TECHNIQUES)
    readers = _check.whole("readers", readers, least=1)
    load = _check.number("load", load)
    seconds = _check.number("seconds", seconds, above=0)
    copies = _check.whole("copies", copies, least=1)
    ttl = _check.number("ttl", ttl, above=0)
    pause = _check.number("pause", pause, above=0)
    beta = _check.number("beta", beta)
    free = [0.0] * _check.whole("connections", connections, least=1)
    draw = random.Random(seed)
    rows: list[tuple[str, str, float, float, float, float | None]] = []
    ends: list[float] = []
    flights: dict[int, float] = {}  # whose load: when it ends
    loaded = 0.0
    asks = [(draw.expovariate(1 / pause), reader) for reader in range(readers)]
    heapify(asks)
    while (ask := heappop(asks))[0] < seconds:
        at, reader = ask
        while ends and ends[0] <= at:
            loaded = heappop(ends)
        left, done = loaded + ttl - at, at
        early = technique == "XFetch" and -load * beta * log(1 - draw.random()) >= left
        if left <= 0 or early:
            each = {"single-flight": reader % copies, "nothing": len(rows), "XFetch": len(rows)}
            whose = each.get(technique, 0)
            if flights.get(whose, -1.0) <= at:
                flights[whose] = max(at, heappop(free)) + load
                heappush(free, flights[whose])
                heappush(ends, flights[whose])
                rows.append((technique, "load", at, flights[whose], flights[whose] - at, None))
            if technique != "stale-while-revalidate":
                done = flights[whose]
        age = done - max(loaded, done if done > at else 0.0)
        rows.append((technique, "read", at, done, done - at, age))
        heappush(asks, (done + draw.expovariate(1 / pause), reader))
    return pd.DataFrame(rows, columns=COLUMNS)


def _expiries(df: pd.DataFrame) -> "pd.Series[int]":
    """Return how many loads each expiry started, as `an_expiry` tells them apart."""
    began = df.loc[df["event"] == "load", "began"].sort_values()
    return began.groupby((began.diff() >= TTL / 2).cumsum()).size()


def _window(
    draw: np.random.Generator, rate: float, mean: float, load: float, ttl: float
) -> tuple[float, float, float]:
    """Return loads that begin before the first ends, chances used until then, seconds early."""
    reads = draw.uniform(-ttl, ttl, draw.poisson(2 * rate * ttl))
    left = np.sort(np.append(reads, -ttl))[::-1]  # what each finds left, early reads first
    begins = left[draw.exponential(mean, len(left)) >= left]
    until = left[left >= begins[0]]
    used = np.exp(-np.maximum(until, 0) / mean).sum()
    return float((begins > begins[0] - load).sum()), float(used), float(begins[0])


def _together(calls: list[Callable[[], object]], seconds: float = 0.0) -> None:
    """Make the calls, which should end after some seconds, at once, a thread each."""
    limit = min(seconds + PATIENCE, _check.LONGEST_WAIT)
    callers.crowd(lambda: calls.pop()(), len(calls), limit=limit)
