"""A drill: cause faults for real, one after the other, and see which rules fire, and when.

All of it is scraped and evaluated in this process, so that it needs no Prometheus.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import redis
from matplotlib.axes import Axes

from cachelab import _check
from cachelab.clients import connect
from cachelab.lab.draw import charts
from cachelab.lab.watch.chain import FAULTS, Watched
from cachelab.lab.watch.evaluate import firing, text_of
from cachelab.lab.watch.rules import FOR, Rule, rules
from cachelab.lab.watch.scrapes import Scrapes, Target

# The scan is first: its rule compares with a past, and while a server is frozen scrapes are late.
FIVE = ("scan", "killed", "frozen", "full", "wrong password")
HOLD = 10  # scrapes that a fault lasts at least: longer than most rules wait
MOST = 40  # scrapes that are waited for an alert, or for its end
CALM = 14  # scrapes before the first fault: as many as a rule wants to have a past
ANSWER = 0.5  # seconds that a server has
# What redis_exporter calls the numbers of INFO that rules ask for.
INFO = {
    "used_memory": "redis_memory_used_bytes",
    "maxmemory": "redis_memory_max_bytes",
    "total_system_memory": "redis_total_system_memory_bytes",
    "connected_clients": "redis_connected_clients",
    "connected_slaves": "redis_connected_slaves",
    "rejected_connections": "redis_rejected_connections_total",
    "keyspace_hits": "redis_keyspace_hits_total",
    "keyspace_misses": "redis_keyspace_misses_total",
    "rdb_last_save_time": "redis_rdb_last_save_timestamp_seconds",
}


def exporter(url: str) -> Callable[[], str]:
    """Return a target for `Scrapes`: INFO of a server, by the names that redis_exporter has for it.

    Of a server that is frozen it says nothing, of one that refuses ``redis_up 0``, as that does.

    Args:
        url: Of the server.
    """
    client = connect(url, check=False, retries=0, timeout=ANSWER)

    def text() -> str:
        try:
            told: dict[str, Any] = client.info()
        except redis.TimeoutError as error:
            raise TimeoutError("the server gives no answer in time") from error
        except redis.RedisError:
            return "redis_up 0\n"
        about = {"role": told["role"], "maxmemory_policy": told["maxmemory_policy"]}
        lines = [f"redis_instance_info{{{text_of(about)}}} 1"]
        lines += [f"{name} {told[where]}" for where, name in INFO.items() if where in told]
        lines += [
            f'redis_errors_total{{err="{name.removeprefix("errorstat_")}"}} {counts["count"]}'
            for name, counts in told.items()
            if name.startswith("errorstat_")
        ]
        return "\n".join([*lines, "redis_up 1", ""])

    return text


def scraped(targets: Mapping[str, Target], looks: int, every: float) -> pd.DataFrame:
    """Return what so many scrapes at even distances have brought, as `Scrapes.frame`."""
    looks = _check.whole("looks", looks, least=1)
    return Scrapes(targets).watch((looks - 1) * every, every)


def drill(
    faults: Sequence[str] = FIVE,
    every: float = 0.5,
    told: Callable[[str], object] | None = None,
) -> tuple[pd.DataFrame, dict[str, tuple[float, float]]]:
    """Cause faults one after the other in an application and its server, and scrape both.

    A fault lasts until its alert fires, ten scrapes at least; the next one waits until that is
    over. Both have an end, whatever does not come.

    Args:
        faults: Names in `chain.FAULTS`.
        every: Seconds between two scrapes.
        told: Called with the name of each fault as it begins.

    Returns:
        What was scraped, as `Scrapes.frame`, and {fault: (cause, end)}, in the same time.
    """
    known, spans = rules(every), dict[str, tuple[float, float]]()
    with Watched() as watched:
        scrapes = Scrapes(watched.targets | {"redis": exporter(watched.server.url)})

        def look_on(looks: int, least: int, alert: str = "") -> None:
            """Scrape until an alert fires, or without a name until none does."""
            for count in range(1, looks + 1):
                due = time.monotonic() + every
                now = float(scrapes.look()["time"].iloc[-1])
                fires = _fires(known, scrapes.frame, now, every)
                if count >= least and (alert in fires if alert else not fires):
                    return
                time.sleep(max(0.0, due - time.monotonic()))

        look_on(CALM, CALM)
        for fault in faults:
            if told is not None:
                told(fault)
            began = time.time()
            watched.cause(fault)
            look_on(MOST, HOLD, FAULTS[fault].alert)
            spans[fault] = (began, time.time())
            watched.mend(fault)
            look_on(MOST, FOR)
    return scrapes.frame, spans


def outcome(
    known: Sequence[Rule], df: pd.DataFrame, spans: Mapping[str, tuple[float, float]]
) -> pd.DataFrame:
    """Return what fired in each fault that did not fire when it began.

    Args:
        known: The rules.
        df: What was scraped.
        spans: {fault: (cause, end)}, as `drill` returns them.

    Returns:
        The tidy frame (fault, alert, scrapes), first alert first: after how many scrapes of the
        fault it fired.
    """
    fired, times = firing(known, df), pd.Series(df["time"].unique())
    rows = []
    for fault, (cause, end) in spans.items():
        new = fired[fired["begin"].between(cause, end)].drop_duplicates("alert")
        rows += [
            (fault, alert, int(times.between(cause, begin).sum()))
            for alert, begin in zip(new["alert"], new["begin"], strict=True)
        ]
    return pd.DataFrame(rows, columns=["fault", "alert", "scrapes"])


def over_time(kinds: Mapping[str, Sequence[Rule]], df: pd.DataFrame) -> pd.DataFrame:
    """Return how many of the rules of each kind fire at each scrape: (at, rules, alerts).

    at: seconds since the first scrape.
    """
    times, rows = df["time"].unique(), []
    for kind, known in kinds.items():
        fired = firing(known, df)
        for now in times:
            on = (fired["begin"] <= now) & ~(fired["end"] <= now)
            rows.append((now - times[0], kind, fired["alert"][on].nunique()))
    return pd.DataFrame(rows, columns=["at", "rules", "alerts"])


def chart(
    counts: pd.DataFrame,
    title: str,
    shade: Mapping[str, tuple[float, float]] | None = None,
    name: str | None = None,
) -> Axes:
    """Draw `over_time`: how many rules fire, ours and those that people copy.

    Args:
        counts: What `over_time` returned.
        title: The finding.
        shade: {fault: (cause, end)} in seconds since the first scrape.
        name: File name of the figure kept.
    """
    return charts.timeline(
        counts,
        "at",
        "alerts",
        "rules",
        title=title,
        name=name,
        roles={"ours": "cache", "copied": "database"},
        steps=True,
        logy=False,
        ylim=(0, max(4, int(counts["alerts"].max()) + 1)),
        shade=shade,
        xlabel="seconds since the first scrape",
        ylabel="alerts that fire",
    )


def _fires(known: Sequence[Rule], df: pd.DataFrame, now: float, every: float) -> set[str]:
    """Return which alerts fire now, as far as the last scrapes tell."""
    times = [one for one in df["time"].unique() if one > now - MOST * every]
    fired = firing(known, df, times)
    return set(fired["alert"][fired["end"].isna()])
