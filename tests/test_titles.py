"""Titles of the committed charts: each of their numbers is in the chart's data, or follows from it.

It follows as the chart's kind shows it (a median, a percentile, the most), rounded as the title
has it, or as a ratio or a difference of two of those.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from cachelab.lab import notebooks, outage

COMMITTED = notebooks.SCALES["full"]
UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "%": 0.01}
NUMBER = re.compile(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?: ?(ns|µs|ms|s|%|×|times|points)(?!\w))?")
UNSAID = {r"\+$": "points", r"as \w+ as $": "times"}  # units that words before a number imply
SAID = {  # parts of titles whose numbers are nowhere in the figure
    "01_break_even": r"takes \d+ % of a load",  # which is not drawn
    "01_hit_rate": r"p95 is \d+ %",  # median of each round's share, not share of the medians
    "04_misses": r"^\d+ misses",
    "05_methods_far": r"^\d+ ms away",
    "06_price": r"\d+ % hits",
    "06b_own_trace": r"room for [\d,]+ keys",  # where a line crosses one half, between its points
    "08_cacheaside": r"99 of 100",
    "08_nothing": r"99 of 100|[\d.]+ loads an expiry",  # as 08_ladder has it
    "11b_breaker": r"less than 0\.1 s",
    "11b_open_loop": r"Slower than 0\.1 s",
    "12_failover": r"^[\d.]+ s|\d+ acknowledged",  # within steps; the sum of steps, as the next two
    "12_stale": r"\d+ of \d+ reads",
    "12_stale_mended": r"\d+ of \d+ reads",
    "12b_cost": r"[\d.]+ × the",  # of the bars of three nodes together
    "12b_each_breaker": r"of \d+ reads|longer than 0\.1 s",  # all dots; the limit
    "12b_killed": r"\d+ % hits|for [\d.]+ s",  # not loaded while the node was away; within steps
    "12b_one_breaker": r"of \d+ reads|longer than 0\.1 s",
    "12b_slots": r"1000 of 1,000",  # all dots of one name
    "13_faults": r"in \d of 5 faults|rules in \d$",  # of faults, in which alerts are counted
    "13_health": r"of 12 copied",  # all of them
    "13_prefixes": r"of [\d,]+ keys",  # all of them
    "15_ratios": r"^Of \d+ .*",  # claims by their verdicts, of which the chart shows the numbers
    "15_verdicts": r"^Of \d+ claims",  # all of them: the sum of the bars
}


class Number(NamedTuple):
    """A number of a title: its text, its value in the unit of columns, half its last digit."""

    text: str
    value: float
    slack: float
    unit: str


class Shown(NamedTuple):
    """What a figure shows: values (place, series, value), and numbers of its settings and words.

    Values are compared that have the place in common, such as an x or a percentile, or the series.
    """

    values: pd.DataFrame
    named: set[float]


def numbers(title: str) -> Iterator[Number]:
    for found in NUMBER.finditer(title):
        digits, before = found[1].rstrip(",").replace(",", ""), title[: found.start()]
        unit = found[2] or next(
            (unit for end, unit in UNSAID.items() if re.search(end, before)), ""
        )
        scale = UNITS.get(unit, 1.0)
        slack = 0.5001 * 10 ** -len(digits.partition(".")[2]) * scale
        yield Number(found[0].rstrip(","), float(digits) * scale, slack, unit)


def shown(figure: dict, frames: list[pd.DataFrame]) -> Shown:
    values: list[tuple[object, object, float]] = []
    named: set[float] = set()
    for chart, df in zip(figure["charts"], frames, strict=True):
        given = chart["arguments"]
        words = [*(one for key, one in given.items() if key != "title")]
        for column, cells in df.items():
            if not pd.api.types.is_numeric_dtype(cells):
                words.extend(cells.unique())
            elif column != given.get("y", given["x"]):
                seconds = UNITS["ms"] if column.endswith("_ms") else 1.0
                places = cells[~is_model(df)].dropna().unique()
                named.update(seconds * places if len(places) <= 50 else [])
        told = json.dumps(words, ensure_ascii=False, default=str)
        named.update(number.value for number in numbers(told))
        values.extend(read_off(chart["kind"], given, df))
    return Shown(pd.DataFrame(values, columns=["place", "series", "value"]).dropna(), named)


def is_model(df: pd.DataFrame) -> pd.Series:
    """Return which rows are on a line between those that were measured, as far as any was."""
    told = df.get("source", pd.Series("", df.index)).eq("model")
    return told & ~told.all()


def read_off(kind: str, given: dict, df: pd.DataFrame) -> Iterator[tuple[object, object, float]]:
    """Yield what a reader reads off a chart of this kind: place, series and value."""
    if kind in ("ranking", "bars"):
        place, value = ("y", "x") if kind == "ranking" else ("x", "y")
        series = df[given["by"]] if "by" in given else pd.Series("", df.index)
        for column in filter(None, (given[value], given.get("low"), given.get("high"))):
            where = [column] * len(df) if kind == "ranking" else df[given[place]]
            who = df[given[place]] if kind == "ranking" else series
            yield from zip(where, who, df[column], strict=True)
        return
    by = given.get("y" if kind == "strip" else "by")
    groups = dict(iter(df.groupby(by))) if by else {"": df}
    if kind == "curve":
        yield from on_curves(given, groups)
        return
    if kind == "timeline":
        groups["all"] = df
    for group, rows in groups.items():
        yield from ((place, group, value) for place, value in told_of(rows, given, kind))


def on_curves(given: dict, groups: dict[str, pd.DataFrame]) -> Iterator[tuple[object, str, float]]:
    """Yield the median of each series at every place where one was measured, and a model's ends."""
    lines = {}
    for group, rows in groups.items():
        model = is_model(rows)
        seen = rows[~model].groupby(given["x"])[given["y"]].median()
        theory = rows[model].set_index(given["x"])[given["y"]].sort_index()
        lines |= {group: seen, f"{group}, model": theory.iloc[[0, -1] if len(theory) else []]}
    places = np.unique(np.concatenate([line.index for line in lines.values()]))
    for group, line in lines.items():
        for at in places[(places >= line.index.min()) & (places <= line.index.max())]:
            yield at, group, float(np.interp(at, line.index, line))


def told_of(rows: pd.DataFrame, given: dict, kind: str) -> Iterator[tuple[str, float]]:
    """Yield percentiles of measurements, and how many are beyond the limits that a title names.

    Over time, those of each event that is shaded too, and of all events.
    """
    column, parts = given["x"], {"": rows}
    if kind == "timeline":
        column, events = given["y"], given.get("shade") or {}
        reads = rows.rename(columns={given["x"]: "began", column: "seconds"})
        for chosen in filter(None, (events, *({one: span} for one, span in events.items()))):
            parts[f", {[*chosen]}"] = rows.loc[outage.during(reads, chosen).index.unique()]
    limits = [one.value for one in numbers(given["title"]) if one.unit in ("s", "ms", "µs")]
    for part, some in parts.items():
        values = some[column]
        for share in (0, 0.5, 0.95, 0.99, 1) if len(values) else ():
            yield f"{share}{part}", values.quantile(share)
            yield f"{share}{part}", values.quantile(share, interpolation="lower")
        for limit in limits:
            yield f"above {limit}{part}", float((values > limit).sum())
            yield f"below {limit}{part}", float((values < limit).mean())


def follows(number: Number, seen: Shown) -> bool:
    """Return whether a number is one of those seen, or a ratio or a difference of two of them."""
    place, series, values = (seen.values[column].to_numpy() for column in seen.values)
    one_place, one_series = np.equal.outer(place, place), np.equal.outer(series, series)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.divide.outer(values, values)
    steps = 100 * np.subtract.outer(values, values)
    candidates = {
        "×": [values, ratios[one_place | one_series]],
        "times": [values, ratios[one_place | one_series]],
        "points": [steps[one_place]],
        "%": [values, ratios[one_place]],
    }.get(number.unit, [values])
    near = [
        np.abs(one - number.value) <= number.slack for one in (*candidates, np.array([*seen.named]))
    ]
    return any(map(np.any, near))


def read(name: str) -> tuple[dict, list[pd.DataFrame]]:
    figure = json.loads((COMMITTED / f"{name}.json").read_text(encoding="utf-8"))
    charts = figure["charts"]
    return figure, [pd.read_csv(COMMITTED / one["data"], dtype=one["dtypes"]) for one in charts]


def strange(figure: dict, frames: list[pd.DataFrame], said: str = "(?!)") -> list[str]:
    """Return the numbers of a figure's titles that do not follow from its data."""
    titles = (re.sub(said, "", chart["arguments"]["title"]) for chart in figure["charts"])
    seen = shown(figure, frames)
    return [one.text for title in titles for one in numbers(title) if not follows(one, seen)]


NAMES = sorted(file.stem for file in COMMITTED.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_each_number_of_a_title_is_in_the_data_or_follows_from_it(name):
    assert strange(*read(name), SAID.get(name, "(?!)")) == []


def test_what_is_left_out_of_titles_is_in_them():
    titles = {name: [one["arguments"]["title"] for one in read(name)[0]["charts"]] for name in SAID}
    unused = [
        (name, part)
        for name, parts in SAID.items()
        for part in parts.split("|")
        if not any(re.search(part, title) for title in titles[name])
    ]
    assert unused == []


WAYS = pd.DataFrame({"way": ["GET", "MGET of 20"], "seconds": [0.08, 0.0051]})
READS = pd.DataFrame({"at": [0.5, 1.5, 1.6, 3.0], "seconds": [0.001, 0.2, 0.3, 0.001]})
READ_OFF = {
    "MGET of 20 takes 5.1 ms, GET 80 ms": [],
    "MGET of 20 takes 5.2 ms, GET 80 ms": ["5.2 ms"],
    "MGET of 20 is 16 times as fast": [],
    "MGET of 30 is 15 times as fast": ["30", "15 times"],
    "GET takes as long as 16 MGET of 20": [],
}
OVER_TIME = {
    "half of those who meet it wait 0.25 s": [],
    "half of all reads wait 0.25 s": [],
    "half of those who meet it wait 0.35 s": ["0.35 s"],
    "slower than 0.2 s: 1": [],
    "slower than 0.02 s: 4": ["0.02 s", "4"],
}


@pytest.mark.parametrize("title", READ_OFF)
def test_a_number_that_does_not_follow_would_be_noticed(title):
    given = {"x": "seconds", "y": "way", "title": title}
    figure = {"charts": [{"kind": "ranking", "arguments": given}]}
    assert strange(figure, [WAYS]) == READ_OFF[title]


@pytest.mark.parametrize("title", OVER_TIME)
def test_a_number_of_an_event_that_does_not_follow_would_be_noticed(title):
    given = {"x": "at", "y": "seconds", "title": title, "shade": {"frozen": [1, 2]}}
    figure = {"charts": [{"kind": "timeline", "arguments": given}]}
    assert strange(figure, [READS]) == OVER_TIME[title]


def test_of_titles_whose_numbers_are_a_quarter_larger_most_would_be_noticed():
    told, noticed = 0, 0
    for figure, frames in map(read, NAMES):
        seen = shown(figure, frames)
        for chart in figure["charts"]:
            larger = [
                one._replace(value=one.value + max(one.value / 4, 2 * one.slack))
                for one in numbers(chart["arguments"]["title"])
            ]
            told += len(larger)
            noticed += sum(not follows(one, seen) for one in larger)
    assert noticed > 0.75 * told > 75
