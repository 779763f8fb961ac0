"""What figures have kept of a claim: cases of their data, by generic measures or named ones.

A generic measure is a text of this form, where what is in brackets may be left out:

    shown[column, statistic]: name; name | name        the value of each; | what mends the claim
    ratio[column, statistic]: one / other; one / other

A name is a series of the chart, a place, or "series, place". Of a curve each point is a case, with
its model. The column is the chart's own unless another is named; the statistic is the median, or
max, sum, p95, p99.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd

from cachelab.errors import CachelabError
from cachelab.lab import notebooks, scale
from cachelab.lab.claims.cases import Case, counted, instead, over, part, sampled
from cachelab.lab.draw import figures
from cachelab.lab.draw.units import unit_of, written

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
SOON = 6  # scrapes of a fault: who is told of it later is told by users
GENERIC = re.compile(r"(shown|ratio)(?:\[([^\]]*)\])?(?:: (.+))?")


class NoData(CachelabError):
    """A claim's data are not kept, or are not what its measure asks for."""


@dataclass(frozen=True)
class Figure:
    """A kept figure: its charts as `figures.read` returns them, and where they come from.

    Args:
        name: As in "05_speed_up".
        charts: Each with its frame as ``df``.
        scale: "quick" or "full".
        date: The day it was measured.
        is_older: The notebook's code has changed since.
    """

    name: str
    charts: list[dict[str, Any]]
    scale: str
    date: str
    is_older: bool

    @property
    def df(self) -> pd.DataFrame:
        """The data of the first chart."""
        return self.charts[0]["df"]


def folders() -> list[Path]:
    """Return where to look for a figure: this run's charts, those of its scale, the committed."""
    named = os.environ.get("CACHELAB_CHARTS")
    own = [Path(named)] if named else []
    return [*own, notebooks.SCALES[scale()], notebooks.SCALES["full"]]


def find(name: str) -> Figure:
    """Return a kept figure.

    Raises:
        NoData: No folder has it.
        FigureError: It is malformed.
    """
    for folder in folders():
        if (file := folder / f"{name}.json").exists():
            figure = figures.read(file)
            size, day = (str(figure["environment"].get(key, "?")) for key in ("scale", "date"))
            return Figure(name, figure["charts"], size, day, _is_older(file))
    raise NoData(f"{name} is kept nowhere: python -m cachelab charts --only {name.split('_')[0]}")


def cases_of(figure: Figure, measure: str) -> list[Case]:
    """Return the cases that a measure finds in a figure.

    Raises:
        NoData: The measure does not exist, or the figure has not what it asks for.
    """
    try:
        if measure in NAMED:
            return NAMED[measure](figure)
        found = GENERIC.fullmatch(measure)
        if not found:
            raise NoData(f"no such measure: {measure!r}")
        return _generic(figure, *found.groups())
    except (LookupError, ValueError, TypeError, ZeroDivisionError) as error:
        raise NoData(f"{figure.name} has not what {measure!r} asks for: {error}") from None


@cache
def _code_of(path: Path, _: int) -> tuple[str, str]:
    """Return the digests of a notebook's code, now and when its outputs were stored."""
    nb = nbformat.read(path, as_version=4)
    return notebooks.code_digest(nb), nb.metadata.cachelab.get("outputs", {}).get("code", "")


def _is_older(file: Path) -> bool:
    """Return whether a figure was made before its notebook's code was as it is."""
    path = notebooks.numbered().get(notebooks.number(file))
    if path is None or file.stat().st_mtime_ns > path.stat().st_mtime_ns:
        return False
    now, then = _code_of(path, path.stat().st_mtime_ns)
    return now != then if file.parent == notebooks.SCALES["full"] else True


# Generic measures


def _generic(figure: Figure, form: str, options: str | None, names: str | None) -> list[Case]:
    column, _, statistic = (options or "").partition(",")
    told = [side.split("; ") for side in (names or "").split(" | ")]
    found = []
    for chart in figure.charts:
        tidy = _tidy(chart, column.strip(), statistic.strip() or "p50")
        label = _label(chart) if len(figure.charts) > 1 else ""
        for number, side in enumerate(told):
            for name in side if names else dict.fromkeys(tidy.name):
                pick = _shown if form == "shown" else _ratio
                some = [replace(one, name=_joined(label, one.name)) for one in pick(tidy, name)]
                found += [instead(one) for one in some] if number else some
    if not found:
        raise LookupError("no rows")
    return found


def _label(chart: dict[str, Any]) -> str:
    return re.split(r"[:,]", chart["arguments"]["title"])[0]


def _joined(*parts: str) -> str:
    return ": ".join(filter(None, parts))


@dataclass(frozen=True)
class _Tidy:
    """The measured rows of a chart as cases, each with the names that it goes by."""

    name: list[str]  # of the series
    cases: list[tuple[set[str], Case]]


def _tidy(chart: dict[str, Any], column: str, statistic: str) -> _Tidy:
    df, given, kind = chart["df"], chart["arguments"], chart["kind"]
    along = kind in ("curve", "bars", "timeline")
    value = column or (given["y"] if along else given["x"])
    series = given.get("by") if along or kind == "ecdf" else given["y"]
    place = given["x"] if kind in ("curve", "bars") else None
    source = given.get("source", "source")
    model = df[source] == "model" if source in df else pd.Series(False, df.index)
    keys = [one for one in (series, place) if one]
    cases = []
    measured = df[~model].dropna(subset=[value])
    groups = measured.groupby(keys, sort=False) if keys else [((), measured)]
    for key, rows in groups:
        told = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=False))
        one = _case(rows, value, statistic, "")
        names = {str(part) for part in told.values()} | {", ".join(map(str, told.values())), ""}
        at = told.get(place)
        if kind == "curve" and at is not None:
            line = df[model & ((df[series] == told[series]) if series else True)]
            line = line.dropna(subset=[place, value]).sort_values(place)
            expected = float(np.interp(at, line[place], line[value])) if len(line) else None
            unit = (given.get("units") or {}).get(place) or unit_of(place)
            said = f"at {written(at, unit)}" + ("" if unit else f" {given.get('xlabel') or place}")
            one = replace(one, name=said, at=float(at), predicted=expected)
        else:
            one = replace(one, name=", ".join(str(part) for part in told.values()))
        cases.append((names, one))
    return _Tidy([str(one) for one in (measured[series].unique() if series else [""])], cases)


def _case(rows: pd.DataFrame, value: str, statistic: str, name: str) -> Case:
    values = rows[value].to_numpy(float)
    if statistic in ("max", "sum"):
        return counted(name, getattr(np, statistic)(values), len(values))
    if len(values) > 1:
        return sampled(name, values, SHARES[statistic])
    row, n = rows.iloc[0], rows.get("n")
    trials = 1 if n is None or np.isnan(n.iloc[0]) else int(n.iloc[0])
    if f"{value}_low" in rows:
        return Case(name, values[0], row[f"{value}_low"], row[f"{value}_high"], trials)
    if trials > 1 and unit_of(value) == "%" and values[0] <= 1:
        return part(name, values[0] * trials, trials)
    return counted(name, values[0], trials)


def _named(tidy: _Tidy, name: str) -> list[Case]:
    found = [case for names, case in tidy.cases if name in names]
    if not found:
        raise LookupError(f"no {name!r}")
    return found


def _shown(tidy: _Tidy, name: str) -> list[Case]:
    return _named(tidy, name)


def _ratio(tidy: _Tidy, names: str) -> list[Case]:
    one, _, other = names.partition(" / ")
    tops, bottoms = _named(tidy, one), _named(tidy, other)
    if tops[0].at is None:
        return [over(names, tops[0], bottoms[0])]
    below = {case.at: case for case in bottoms}
    return [over(case.name, case, below[case.at]) for case in tops if case.at in below]


# Named measures


def _all_hits(figure: Figure) -> list[Case]:
    df = figure.df[(figure.df.hit_rate == 1) & figure.df.ratio.notna()]
    cases = []
    for origin in ("before the database", "before SQLite"):
        rows = df[df.origin == origin]
        model = rows[rows.source == "model"].ratio
        seen = sampled(origin, rows[rows.source == "measured"].ratio)
        cases.append(replace(seen, predicted=float(model.iloc[0]) if len(model) else None))
    return cases


def _times_at_90(figure: Figure) -> list[Case]:
    cases = []
    for name, chart in zip(("the mean", "p95"), figure.charts, strict=True):
        df = chart["df"][np.isclose(chart["df"].hit_rate, 0.9)]
        seen = df[df.source == "measured"].groupby("read").seconds
        alone = chart["df"][chart["df"].read == "no cache"].seconds.dropna()
        bare = sampled("", alone)
        hits = sampled(name, seen.get_group("with the cache"))
        model = df[(df.source == "model") & (df.read == "with the cache")].seconds.iloc[0]
        cases.append(replace(over(name, bare, hits), predicted=bare.value / model))
    return cases


def _cost(figure: Figure) -> list[Case]:
    df = figure.df[figure.df.source == "model"].pivot(index="gb", columns="of", values="cost")
    bare = df["together"].iloc[0]
    best, dear = df["together"].min(), (10 * df["memory"] + df["database"]).iloc[1:].min()
    return [
        counted("the cheapest size", best / bare),
        counted("everything cached", df["together"].iloc[-1] / bare),
        counted("memory ten times as dear, the cheapest size", dear / bare),
        counted(
            "memory ten times as dear, everything cached",
            (10 * df["memory"] + df["database"]).iloc[-1] / bare,
        ),
    ]


def _gaps(figure: Figure) -> list[Case]:
    return [
        counted(_label(chart).removeprefix("Beside "), chart["df"]["seconds"].max())
        for chart in figure.charts
    ]


def _gap_ratio(figure: Figure) -> list[Case]:
    calm, held = _gaps(figure)
    return [over(f"{held.name} / {calm.name}", held, calm)]


def _gather_to_threads(figure: Figure) -> list[Case]:
    tidy = _tidy(figure.charts[0], "", "p50")
    lines = {name: [c for names, c in tidy.cases if name in names] for name in tidy.name}
    below = {case.at: case for case in lines["threads"]}
    pairs = [(case, below[case.at]) for case in lines["gather"] if case.at in below]
    return [over(one.name, one, other) for one, other in pairs]


def _each_call(variant: str) -> Callable[[Figure], list[Case]]:
    def seconds_each(figure: Figure) -> list[Case]:
        cases = []
        for chart in figure.charts:
            row = chart["df"].set_index("variant").loc[variant]
            name = _label(chart)
            cases.append(counted(name, row["p50"] / row["waits"], int(row["n"])))
        return cases

    return seconds_each


def _trips_left(figure: Figure) -> list[Case]:
    """Of the time of a record in batches of 100, the share that is still trips."""
    df = figure.df[(figure.df.source == "measured") & (figure.df.batch == "batches of 100")]
    cases = []
    for row in df.itertuples():
        trip, times = row.trip_ms, min(row._asdict()["_3"], 99.0)
        each = trip * (1 - times / 100) / (times - 1)
        share = trip / 100 / (trip / 100 + each)
        cases.append(replace(counted(f"at {written(trip / 1000, 's')}", share), at=float(trip)))
    return cases


def _pool_of_20(figure: Figure) -> list[Case]:
    df, cases = figure.df, []
    for where, rows in df[df.source != "model"].groupby("where", sort=False):
        calls = rows.groupby("pool").calls_per_second.median()
        model = df[(df.source == "model") & (df["where"] == where)].sort_values("pool")
        expected = None
        if len(model):
            at_20 = np.interp(20, model.pool, model.calls_per_second)
            expected = float(at_20 / model.calls_per_second.max())
        cases.append(counted(str(where), calls[20] / calls.max(), predicted=expected))
    return cases


def _tail(figure: Figure) -> list[Case]:
    return [
        over(str(name), sampled("", rows.seconds, 0.99), sampled("", rows.seconds))
        for name, rows in figure.df.groupby("variant", sort=False)
    ]


def _right_in_time(figure: Figure) -> list[Case]:
    """Of the reads that come during each event, the share that is right within half a second."""
    df, events = figure.df, figure.charts[0]["arguments"]["shade"]
    cases = []
    for event, (begin, end) in events.items():
        met = df[df.began.between(begin, end)]
        right = ((met.outcome == "right") & (met.seconds < 0.5)).sum()
        cases.append(part(f"the server is {event}", right, len(met)))
    return cases


def _calm_in_outage(figure: Figure) -> list[Case]:
    chart = figure.charts[0]
    df, (begin, end) = chart["df"], chart["arguments"]["shade"]["frozen"]
    met = df[df.began.between(begin, end)].seconds
    return [part("the server is frozen", (met < 0.1).sum(), len(met))]


def _slow_in(loop: str) -> Callable[[pd.DataFrame], int]:
    return lambda df: int((df[df.loop == loop].seconds > 0.1).sum())


def _closed_to_open(figure: Figure) -> list[Case]:
    closed, open_ = (_slow_in(f"{one} loop")(figure.df) for one in ("closed", "open"))
    return [counted("slow reads, closed loop / open loop", closed / open_, open_)]


def _failed(figure: Figure) -> list[Case]:
    df = figure.df
    failed = int(df[df.outcome == "failed"]["count"].sum())
    return [counted("while the database is dead", failed, int(df["count"].sum()))]


def _lost_at_switch(figure: Figure) -> list[Case]:
    df = figure.df.groupby("outcome")["count"].sum()
    told = {"failed": "refused", "acknowledged, and lost": "acknowledged, and lost"}
    return [counted(name, df[outcome], int(df.sum())) for outcome, name in told.items()]


def _chance(t: float) -> Callable[[Figure], list[Case]]:
    def drawn(figure: Figure) -> list[Case]:
        df = figure.df
        row = df[(df.source == "drawn") & np.isclose(df["seconds left"], t)].iloc[0]
        case = part("drawn 100,000 times", row["share"] * 1e5, 100_000)
        return [replace(case, predicted=float(np.exp(-t / 0.4)))]

    return drawn


def _lru_to_best(figure: Figure) -> list[Case]:
    """LRU's hit rate, as a share of the best other policy's, at the middle of the capacities."""
    cases = []
    for chart in figure.charts:
        df = chart["df"][chart["df"].source == "simulated"]
        middle = sorted(df.capacity.unique())[df.capacity.nunique() // 2]
        rates = df[df.capacity == middle].set_index("policy").hit_rate
        best = rates.drop(["LRU", "Belady"]).max()
        cases.append(counted(_label(chart), rates["LRU"] / best))
    return cases


def _hurried_lru(figure: Figure) -> list[Case]:
    rates = figure.df[figure.df.policy == "LRU"].set_index("pace").hit_rate
    return [counted(pace, rates[pace] / rates["simulated"]) for pace in rates.index[:2]]


def _fullest_node(figure: Figure) -> list[Case]:
    groups = figure.df.groupby("spread", sort=False)["commands"]
    return [counted(str(name), one.max() / one.sum(), int(one.sum())) for name, one in groups]


def _stale(figure: Figure) -> list[Case]:
    tidy = _tidy(figure.charts[1], "", "p50")
    return [case for _, case in tidy.cases]


def _in_the_end(figure: Figure) -> list[Case]:
    """The last value of each line; the first line is what the claim advises."""
    given = figure.charts[0]["arguments"]
    lines = figure.df.sort_values(given["x"]).groupby(given["by"], sort=False)[given["y"]].last()
    ends = lines[figure.df[given["by"]].unique()]
    first, *others = (counted(str(name), value) for name, value in ends.items())
    return [first, *map(instead, others)]


def _noticed(figure: Figure) -> list[Case]:
    """Faults in whose first scrapes an alert begins, of all faults, by rules of each kind."""
    faults = figure.charts[0]["arguments"]["shade"]

    def noticed(rules: str) -> Case:
        df = figure.df[figure.df.rules == rules].sort_values("at")
        begins = df.alerts.diff() > 0
        number = sum(begins[df["at"].between(*fault)][:SOON].any() for fault in faults.values())
        return counted(rules, number, len(faults))

    return [noticed("copied"), instead(noticed("ours"))]


def _warm_to_cold(figure: Figure) -> list[Case]:
    """The hit rate of the first two seconds, as times of a cold cache's."""
    df = figure.df[figure.df.seconds <= 2]
    sums = df.groupby("variant", sort=False)[["hits", "reads"]].sum()
    rates = {name: part("", one.hits, one.reads) for name, one in sums.iterrows()}
    return [over("warmed / cold", rates["warmed"], rates["cold"])]


def _rates_apart(figure: Figure) -> list[Case]:
    """Loads of an adaptive expiry, the farther apart the rates are at which rows change."""
    cases = [case for _, case in _tidy(figure.charts[0], "", "p50").cases]
    return [replace(one, name=f"at rates {one.at:g} times apart") for one in cases]


def _loads_to_cold(figure: Figure) -> list[Case]:
    """All loads after a restart, as times of a cold cache's."""
    loads = figure.df.groupby("variant", sort=False)["loads"].sum()
    times = loads.drop("cold") / loads["cold"]
    return [counted(f"warmed, {name}", value, int(loads[name])) for name, value in times.items()]


NAMED: dict[str, Callable[[Figure], list[Case]]] = {
    "all_hits": _all_hits,
    "times_at_90": _times_at_90,
    "cost": _cost,
    "gaps": _gaps,
    "gap_ratio": _gap_ratio,
    "gather_to_threads": _gather_to_threads,
    "each_batch": _each_call("pipeline"),
    "trips_left": _trips_left,
    "pool_of_20": _pool_of_20,
    "tail": _tail,
    "right_in_time": _right_in_time,
    "calm_in_outage": _calm_in_outage,
    "closed_to_open": _closed_to_open,
    "failed": _failed,
    "lost_at_switch": _lost_at_switch,
    "chance_at_10": _chance(10),
    "chance_at_2": _chance(2),
    "chance_at_0.4": _chance(0.4),
    "chance_at_0.1": _chance(0.1),
    "lru_to_best": _lru_to_best,
    "hurried_lru": _hurried_lru,
    "fullest_node": _fullest_node,
    "stale": _stale,
    "in_the_end": _in_the_end,
    "noticed": _noticed,
    "warm_to_cold": _warm_to_cold,
    "rates_apart": _rates_apart,
    "loads_to_cold": _loads_to_cold,
}
