"""Scrapes from this process: what targets say at /metrics, kept as one tidy frame.

It keeps what Prometheus keeps: a sample a series and scrape, `up` for each target, and a mark (NaN)
where a series that was there is no more. `cachelab.lab.watch.evaluate` evaluates rules on it.
"""

import http.client
import math
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import pandas as pd

from cachelab import _check
from cachelab.lab.watch.evaluate import COLUMNS, text_of

Target = str | Callable[[], str]  # the URL of /metrics, or what returns its text
Row = tuple[float, str, str, float]


class Scrapes:
    """What some targets have said so far.

    Args:
        targets: {job: URL of /metrics, or a function of no arguments that returns its text, as
            ``lambda: generate_latest().decode()`` does for this process itself}.
        timeout: Seconds that a target has for its answer; one that takes longer is not up.
    """

    def __init__(self, targets: Mapping[str, Target], timeout: float = 1.0):
        self._targets = dict(targets)
        self._timeout = _check.number("timeout", timeout, above=0, high=3600)
        self._rows: list[Row] = []
        self._there: dict[str, set[tuple[str, str]]] = {}  # the series of each target's last scrape

    @property
    def frame(self) -> pd.DataFrame:
        """The tidy frame (time, metric, labels, value) of all scrapes; time in seconds."""
        return pd.DataFrame(self._rows, columns=COLUMNS)

    def look(self, now: float | None = None) -> pd.DataFrame:
        """Scrape each target once, and return what that has added to `frame`.

        Args:
            now: The time that is noted, in seconds; that of the clock by default.
        """
        now = time.time() if now is None else now
        begin = len(self._rows)
        for job, target in self._targets.items():
            self._note(now, job, target)
        return pd.DataFrame(self._rows[begin:], columns=COLUMNS)

    def watch(
        self,
        seconds: float,
        every: float = 1.0,
        events: Mapping[float, Callable[[], object]] | None = None,
    ) -> pd.DataFrame:
        """Scrape at even distances for some seconds while things happen; return `frame`.

        Args:
            seconds: How long.
            every: Seconds between two scrapes.
            events: {seconds since the start: what to call then}, between two scrapes.
        """
        every = _check.number("every", every, above=0)
        due = sorted((events or {}).items())
        start, look = time.monotonic(), 0
        while (at := look * every) <= _check.number("seconds", seconds):
            while due and due[0][0] <= at:
                begin, event = due.pop(0)
                time.sleep(max(0.0, start + begin - time.monotonic()))
                event()
            time.sleep(max(0.0, start + at - time.monotonic()))
            self.look()
            look += 1
        return self.frame

    def _note(self, now: float, job: str, target: Target) -> None:
        instance = urlsplit(target).netloc if isinstance(target, str) else job
        ours = {"job": job, "instance": instance}
        try:
            text = _fetched(target, self._timeout) if isinstance(target, str) else target()
            found = {(name, labels): value for name, labels, value in samples(text, ours)}
        except (OSError, http.client.HTTPException):
            found = {}
        was_there = self._there.get(job, set())
        self._there[job] = set(found)
        self._rows += [(now, *series, value) for series, value in found.items()]
        self._rows += [(now, *series, math.nan) for series in was_there - found.keys()]
        self._rows.append((now, "up", text_of(ours), float(bool(found))))


def samples(text: str, more: Mapping[str, str] | None = None) -> list[tuple[str, str, float]]:
    """Return (metric, labels, value) for each sample of the text of a /metrics.

    Args:
        text: In the text format of Prometheus.
        more: Labels to add to each, as the target's job and instance; they win.
    """
    from prometheus_client.parser import text_string_to_metric_families

    return [
        (sample.name, text_of(sample.labels | dict(more or {})), float(sample.value))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def _fetched(url: str, timeout: float) -> str:
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        link.request("GET", parts.path or "/metrics")
        answer = link.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{answer.status} {answer.reason}")
        return answer.read().decode()
    finally:
        link.close()
