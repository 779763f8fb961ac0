"""Readers whose server dies, freezes and comes back: what each got, when, and after how long."""

import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pandas as pd
from matplotlib.axes import Axes

from cachelab import _check
from cachelab.lab.draw import charts
from cachelab.lab.draw.units import written
from cachelab.server.node import PracticeSet
from cachelab.server.server import Server

Get = Callable[[str], str | None]
Events = Mapping[float, Callable[[], object]]
Read = tuple[float, float, str]  # began, seconds, outcome

READERS = 10
PAUSE = 0.01  # seconds that a reader rests between two reads
COLUMNS = ["began", "seconds", "outcome"]


def run(
    get: Get,
    rows: Mapping[str, str],
    seconds: float,
    events: Events,
    readers: int = READERS,
    pause: float = PAUSE,
) -> pd.DataFrame:
    """Let readers read for some seconds while things happen, in a closed loop.

    Every reader asks for one of the rows, waits for the answer, pauses, asks again, and ends with
    the run.

    Args:
        get: What the readers call.
        rows: What the database holds, and so what is right.
        seconds: How long they read.
        events: {seconds since the start: what to call then}.
        readers: How many there are.
        pause: Seconds between two reads of one reader.

    Returns:
        The tidy frame (began, seconds, outcome). outcome: "right", "wrong", or the name of the
        error that reached the caller.
    """
    seconds = _check.number("seconds", seconds, above=0)
    pause = _check.number("pause", pause)
    reads: deque[Read] = deque()
    over, start = threading.Event(), time.perf_counter()
    threads = [
        threading.Thread(target=read_on, args=(get, rows, reads.append, over, pause, n))
        for n in range(_check.whole("readers", readers, least=1))
    ]
    with _running(threads, over):
        _happen(events, start, seconds)
    return _frame(reads, start)


def run_open(
    get: Get,
    rows: Mapping[str, str],
    seconds: float,
    events: Events,
    rate: float = 500.0,
    workers: int = 200,
) -> pd.DataFrame:
    """Let reads arrive at a fixed rate while things happen, in an open loop.

    A read is due whatever became of those before it, and its time counts from when it was due: so
    those that a frozen server holds up are all counted, where a closed loop sees one a reader.
    The run ends when the last read has been answered.

    Args:
        get: What is called for each read.
        rows: What the database holds, and so what is right; they are asked for in turn.
        seconds: How long reads arrive.
        events: {seconds since the start: what to call then}.
        rate: Arrivals a second.
        workers: Reads under way at once, at most; more wait, and their wait counts.

    Returns:
        The frame of `run`; began is when a read was due.
    """
    seconds = _check.number("seconds", seconds, above=0)
    rate = _check.number("rate", rate, above=0)
    reads: deque[Read] = deque()
    ids, numbers = list(rows), itertools.count()
    over, start = threading.Event(), time.perf_counter()

    def work() -> None:
        for number in numbers:  # all workers share them, so that each read is one worker's
            due = number / rate
            if due >= seconds or over.wait(start + due - time.perf_counter()):
                return
            id = ids[number % len(ids)]
            outcome = _outcome(get, id, rows[id])
            reads.append((start + due, time.perf_counter() - start - due, outcome))

    count = _check.whole("workers", workers, least=1)
    threads = [threading.Thread(target=work) for _ in range(count)]
    with _running(threads, over):
        _happen(events, start, seconds)
        for thread in threads:
            thread.join()
    return _frame(reads, start)


def read_on(
    get: Get,
    rows: Mapping[str, str],
    note: Callable[[Read], object],
    over: threading.Event,
    pause: float = PAUSE,
    seed: int = 0,
) -> None:
    """Read one row after the other, drawn with ``seed``, and note each read until ``over``."""
    draw, ids = random.Random(seed), list(rows)
    while not over.wait(pause):
        id, began = draw.choice(ids), time.perf_counter()
        outcome = _outcome(get, id, rows[id])
        note((began, time.perf_counter() - began, outcome))


def during(df: pd.DataFrame, outages: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Return the reads that began, or still waited, during one of the outages.

    A column ``outage`` names it.
    """
    parts = []
    for name, (begin, end) in outages.items():
        there = (df["began"] < end) & (df["began"] + df["seconds"] > begin)
        parts.append(df[there].assign(outage=name))
    return pd.concat(parts)


def table(
    runs: Mapping[str, pd.DataFrame], outages: Mapping[str, tuple[float, float]]
) -> pd.DataFrame:
    """Return a row for each outage and run: reads served and lost, and times in ms.

    lost: an error, or a wrong value. p50, p99 and longest are of the reads that were served: who
    loses a read at once is not quick.
    """
    rows = []
    for outage, span in outages.items():
        for name, df in runs.items():
            reads = during(df, {outage: span})
            served = reads[reads["outcome"] == "right"]
            times = 1000 * served["seconds"].quantile([0.5, 0.99, 1])
            lost = len(reads) - len(served)
            rows.append((outage, name, len(served), lost, *times.round(1)))
    columns = ["server", "application", "served", "lost", "p50 ms", "p99 ms", "longest ms"]
    return pd.DataFrame(rows, columns=columns)


def chart(
    df: pd.DataFrame,
    title: str,
    outages: Mapping[str, tuple[float, float]],
    seconds: float,
    name: str | None = None,
) -> Axes:
    """Draw a run: the time of each read, errors marked; the same axes for runs of ``seconds``."""
    words = {"xlabel": "seconds since the start", "shade": dict(outages)}
    return _dots(df, title, (0, seconds), name=name, **words)


class Readers:
    """Readers of a server of its own that read until ``close``, for buttons to break and mend.

    Args:
        make: The application: called with the server's URL it returns the ``get`` of all readers.
        rows: What the database holds.
        readers: How many there are.
        kind: What is started for them: a `Server`, or a practice set.
    """

    def __init__(
        self,
        make: Callable[[str], Get],
        rows: Mapping[str, str],
        readers: int = 4,
        kind: Callable[[], Server | PracticeSet] = Server,
    ):
        readers = _check.whole("readers", readers, least=1)
        self.server = kind().start()
        self._reads: deque[Read] = deque(maxlen=20_000)
        self._over = threading.Event()
        arguments = (make(self.server.url), rows, self._reads.append, self._over, PAUSE)
        self._threads = [
            threading.Thread(target=read_on, args=(*arguments, n), daemon=True)
            for n in range(readers)
        ]
        for thread in self._threads:
            thread.start()

    def recent(self, last: float = 10.0) -> pd.DataFrame:
        """Return the reads that ended in the ``last`` seconds; began counts back from now."""
        _check.number("last", last, above=0)
        now, df = time.perf_counter(), pd.DataFrame(list(self._reads), columns=COLUMNS)
        return df[df["began"] + df["seconds"] > now - last].assign(began=df["began"] - now)

    def close(self) -> None:
        """End the server and the readers.

        One that waits for a client without time-outs ends when that gives up.
        """
        self._over.set()
        self.server.stop()
        for thread in self._threads:
            thread.join(1)


def recent_chart(df: pd.DataFrame, last: float = 10.0) -> Axes:
    """Draw what `Readers.recent` returned; the title counts."""
    served = df[df["outcome"] == "right"]
    counts = f"{len(served):,} reads served, {len(df) - len(served):,} lost"
    half = f", half within {written(served['seconds'].median(), 's')}" if len(served) else ""
    return _dots(df, counts + half, (-last, 0), xlabel="seconds ago")


@contextmanager
def _running(threads: list[threading.Thread], over: threading.Event) -> Iterator[None]:
    """Run threads beside the block; set ``over`` and wait for them whatever becomes of it."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _happen(events: Events, start: float, seconds: float) -> None:
    """Call each event when its time has come; return when all time is over."""
    for at, event in sorted(events.items()):
        time.sleep(max(0.0, start + at - time.perf_counter()))
        event()
    time.sleep(max(0.0, start + seconds - time.perf_counter()))


def _outcome(get: Get, id: str, right: str) -> str:
    try:
        return "right" if get(id) == right else "wrong"
    except Exception as error:  # whatever reaches the caller is what is measured
        return type(error).__name__


def _frame(reads: deque[Read], start: float) -> pd.DataFrame:
    df = pd.DataFrame(list(reads), columns=COLUMNS).sort_values("began", ignore_index=True)
    return df.assign(began=df["began"] - start)


def _dots(df: pd.DataFrame, title: str, xlim: tuple[float, float], **words: object) -> Axes:
    reads = df.assign(read=df["outcome"].eq("right").map({True: "served", False: "lost"}))
    return charts.timeline(
        reads,
        "began",
        "seconds",
        "read",
        title=title,
        xlim=xlim,
        ylim=(1e-5, 10),
        logy=True,
        roles={"served": "cache", "lost": "lost"},
        ylabel="time of a read",
        **words,
    )
