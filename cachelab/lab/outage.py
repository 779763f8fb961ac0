"""An application that reads while its server dies, freezes and comes back: what each read got, when, and after how long."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.axes import Axes

from cachelab.lab import charts
from cachelab.lab.looks import written
from cachelab.server import Server

Get = Callable[[str], str | None]
Events = Mapping[float, Callable[[], object]]

READERS = 10
PAUSE = 0.01  # seconds that a reader rests between two reads
COLUMNS = ["began", "seconds", "outcome"]


def run(
    get: Get, rows: Mapping[str, str], seconds: float, events: Events, readers: int = READERS, pause: float = PAUSE
) -> pd.DataFrame:
    """Let readers read for some seconds while things happen; return the tidy frame (began, seconds, outcome).

    rows: what the database holds, and so what is right. events: {seconds since the start: what to call then}. Every reader
    asks for one of the rows, waits for the answer, pauses, asks again, and ends with the run: a closed loop. outcome:
    "right", "wrong", or the name of the error that reached the caller.
    """
    reads, over, start = deque(), threading.Event(), time.perf_counter()
    threads = [threading.Thread(target=read_on, args=(get, rows, reads.append, over, pause, n)) for n in range(readers)]
    for thread in threads:
        thread.start()
    try:
        for at, event in sorted(events.items()):
            time.sleep(max(0.0, start + at - time.perf_counter()))
            event()
        time.sleep(max(0.0, start + seconds - time.perf_counter()))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    df = pd.DataFrame(list(reads), columns=COLUMNS).sort_values("began", ignore_index=True)
    return df.assign(began=df["began"] - start)


def read_on(
    get: Get, rows: Mapping[str, str], note: Callable, over: threading.Event, pause: float = PAUSE, seed: int = 0
) -> None:
    """Read one row after the other, drawn with ``seed``, and note (began, seconds, outcome) of each until ``over`` is set."""
    draw, ids = random.Random(seed), list(rows)
    while not over.wait(pause):
        id, began = draw.choice(ids), time.perf_counter()
        try:
            outcome = "right" if get(id) == rows[id] else "wrong"
        except Exception as error:
            outcome = type(error).__name__
        note((began, time.perf_counter() - began, outcome))


def during(df: pd.DataFrame, outages: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Return the reads that began, or still waited, during one of the outages, with a column ``outage`` that names it."""
    parts = [df[(df["began"] < end) & (df["began"] + df["seconds"] > begin)].assign(outage=name)
             for name, (begin, end) in outages.items()]  # fmt: skip
    return pd.concat(parts)


def table(runs: Mapping[str, pd.DataFrame], outages: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Return a row for each outage and run: reads served and lost (an error, or a wrong value), and p50, p99, longest in ms."""
    rows = []
    for outage, span in outages.items():
        for name, df in runs.items():
            reads = during(df, {outage: span})
            lost = int((reads["outcome"] != "right").sum())
            times = 1000 * reads["seconds"].quantile([0.5, 0.99, 1])
            rows.append((outage, name, len(reads) - lost, lost, *times.round(1)))
    return pd.DataFrame(rows, columns=["server", "application", "served", "lost", "p50 ms", "p99 ms", "longest ms"])


def chart(
    df: pd.DataFrame, title: str, outages: Mapping[str, tuple[float, float]], seconds: float, name: str | None = None
) -> Axes:
    """Draw a run: the time of each read, errors marked; the same axes for every run of ``seconds``."""
    return _dots(df, title, (0, seconds), name=name, xlabel="seconds since the start", shade=dict(outages))


class Live:
    """Readers of a server of its own that read until ``close``: what a panel of buttons breaks and mends.

    make: the application; called with the server's URL it returns the ``get`` that all readers call.
    """

    def __init__(self, make: Callable[[str], Get], rows: Mapping[str, str], readers: int = 4):
        self.server = Server().start()
        self._reads, self._over, get = deque(maxlen=20_000), threading.Event(), make(self.server.url)
        self._threads = [
            threading.Thread(target=read_on, args=(get, rows, self._reads.append, self._over, PAUSE, n), daemon=True)
            for n in range(readers)
        ]
        for thread in self._threads:
            thread.start()

    def recent(self, last: float = 10.0) -> pd.DataFrame:
        """Return the reads that ended in the ``last`` seconds as the frame of `run`; began counts back from now."""
        now, df = time.perf_counter(), pd.DataFrame(list(self._reads), columns=COLUMNS)
        return df[df["began"] + df["seconds"] > now - last].assign(began=df["began"] - now)

    def close(self) -> None:
        """End the server and the readers; one that waits for a client without time-outs ends when that gives up."""
        self._over.set()
        self.server.stop()
        for thread in self._threads:
            thread.join(1)


def recent_chart(df: pd.DataFrame, last: float = 10.0) -> Axes:
    """Draw what `Live.recent` returned; the title counts."""
    lost = int((df["outcome"] != "right").sum())
    title = f"{len(df) - lost:,} reads served, {lost:,} lost, half within {written(df['seconds'].median(), 's')}"
    return _dots(df, title, (-last, 0), xlabel="seconds ago")


def _dots(df: pd.DataFrame, title: str, xlim: tuple[float, float], **look: object) -> Axes:
    reads = df.assign(read=df["outcome"].map(lambda outcome: "served" if outcome == "right" else "lost"))
    look |= {"roles": {"served": "cache", "lost": "database"}, "ylabel": "time of a read"}
    return charts.timeline(
        reads, "began", "seconds", "read", title=title, xlim=xlim, ylim=(5e-5, 10), logy=True, **look
    )
