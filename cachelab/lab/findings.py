"""Findings: what the figures of a run claim beyond its machine, and whether another run agrees.

python -m cachelab.lab.notebooks run --charts FIRST     one run of all notebooks; SECOND for another
python -m cachelab.lab.findings FIRST SECOND            compare them; status 1 where they disagree

Findings are made from the data kept beside the figures; rows of a model are no measurements.
Shares, ratios and counts are findings as they stand. Times, rates and sizes belong to a machine, so
what is compared is their ratio to the first series at the same place, or to the first place; of
reads over time, the share that is slow, more than ten times the usual.

Intervals are 99 %: among hundreds of findings a few would lie apart at 95 % by chance alone. Where
a point has several measurements they are resampled, in circular blocks of a tenth each, so that a
bad second counts once (Politis and Romano, 1992), with the same picks for all series, so that
rounds stay whole; of three to nine, Student's t of their logarithms. Else the columns NAME_low and
NAME_high tell it, as 95 % intervals which are made wider here, or for a share its n trials
(Jeffreys). Any other number has none: an interval from two would agree with anything.

No run sees by how much the next one differs as a whole: how the system places processes, and how
they lay out their memory, stays the same for minutes (Kalibera and Jones, 2013). Ratios of times
get that allowance on top; those that need it are said.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from cachelab.errors import CachelabError
from cachelab.lab.draw.figures import kept_in, read
from cachelab.lab.draw.units import unit_of, written

CLOSE = 0.10  # findings that differ by less agree
SLOW = 10  # times the usual: so much slower is another kind of read
MANY = 20  # a count from here on comes from chance, with its interval; a smaller one is exact
PEAK = 10  # the same for the highest point of a timeline, which chance decides sooner
RESAMPLES, BLOCKS = 1000, 10
# Standard deviation of a ratio of times from run to run, beyond its interval, where it was largest.
RUNS = 0.05
LEVEL = 0.99
ENDS = NormalDist().inv_cdf((1 + LEVEL) / 2)  # of an interval, in standard deviations
WIDER = ENDS / NormalDist().inv_cdf(0.975)  # than an interval of 95 %
FEW = 10  # measurements: fewer tell too little of their spread to be resampled
COURSE = 20  # points of a curve of times: one with more shows a course, as of heartbeats


def compare(first: str | Path, second: str | Path) -> pd.DataFrame:
    """Return a row a finding of two folders of figures.

    What only one folder has is a row that disagrees, with nan on the other side.

    Returns:
        chart, finding, first, first_low, first_high, second, second_low, second_high, difference
        (second / first − 1) and agrees: the larger is less than 10 % above the smaller, or the
        intervals overlap; alone: that is so without the allowance for ratios of times. In attrs
        are only_in, {folder: the figures that the other has not}, and caution, sentences on what
        should be alike and is not, the servers among it.

    Raises:
        FigureError: A folder has no figures, or a file is malformed.
    """
    one, two = ({file.stem: file for file in kept_in(folder)} for folder in (first, second))
    tables: list[pd.DataFrame] = []
    environments: list[tuple[dict, ...]] = []
    only_in: dict[str, list[str]] = {}
    for name in sorted(one.keys() | two.keys()):
        if name not in one or name not in two:
            where = str(first if name in one else second)
            only_in.setdefault(where, []).append(name)
            tables.append(_table([f"only in {where}"]).assign(chart=name))
            continue
        figures = read(one[name]), read(two[name])
        environments.append(tuple(figure["environment"] for figure in figures))
        mine, theirs = (figure["charts"] for figure in figures)
        for i, pair in enumerate(zip(mine, theirs, strict=False), start=1):
            chart = name if len(mine) == 1 else f"{name}, panel {i}"
            tables.append(between(*pair).assign(chart=chart))
        if len(mine) != len(theirs):
            counts = f"{len(mine)} charts in {first}, {len(theirs)} in {second}"
            tables.append(_table([counts]).assign(chart=name))
    df = pd.concat(tables, ignore_index=True)[["chart", *tables[0].columns.drop("chart")]]
    df.attrs["only_in"] = only_in
    df.attrs["caution"] = [
        *_cautions(environments, "scale", "not the same experiments"),
        *_cautions(environments, "server", "not the same server"),
    ]
    return df


def between(first: dict, second: dict) -> pd.DataFrame:
    """Return the findings of one chart in two runs, as `compare` does for all.

    first, second: charts of `figures.read`.
    """
    if first["kind"] != second["kind"]:
        return _table([f"a {first['kind']} in one, a {second['kind']} in the other"])
    tidy = zip((first, second), _tidy(first, second), strict=True)
    cells = [_cells(chart, df) for chart, df in tidy]
    base, value = next(iter(cells[0]), ("", "", "")), _columns(first)[0]
    quotients = _is_of_the_machine(first) and not base[2].startswith("slow")
    found = [_findings(mine, base if quotients else None) for mine in cells]
    of_times = quotients or _unit(first, value) == "×" or value.startswith("times ")
    sides = {name: [side.get(name) for side in found] for name in found[0] | found[1]}
    return _table(sides, RUNS * of_times)


def in_words(df: pd.DataFrame, everything: bool = False) -> str:
    """Return a comparison in words, and how many findings agree.

    Args:
        df: What `compare` returned.
        everything: All findings, not only those that differ or need the allowance.
    """
    lines = []
    for chart, rows in (df if everything else df[~df["alone"]]).groupby("chart", sort=False):
        lines.append(chart)
        lines += [_line(row) for row in rows.itertuples()]
    agree = int(df["agrees"].sum())
    figures = df["chart"].str.replace(r", panel \d+$", "", regex=True)
    lines.append(f"{agree} of {len(df)} findings in {figures.nunique()} figures agree.")
    if needed := agree - int(df["alone"].sum()):
        lines.append(f"Of them {needed} only with the allowance for what differs from run to run.")
    return "\n".join(lines + [f"Caution: {words}." for words in df.attrs.get("caution", [])])


def main(argv: list[str] | None = None) -> int:
    """Compare two folders and return the exit status.

    0 if all findings agree, 1 if not, 2 if there is nothing to compare.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cachelab.lab.findings", description="Compare two runs' findings."
    )
    parser.add_argument("first", type=Path, help="a folder of figures, such as charts")
    parser.add_argument("second", type=Path, help="the folder of another run")
    parser.add_argument("--all", action="store_true", help="show the findings that agree, too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="save the comparison as a table")
    args = parser.parse_args(argv)
    try:
        df = compare(args.first, args.second)
    except CachelabError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    if args.csv:
        df.to_csv(args.csv, index=False, lineterminator="\n")
    print(in_words(df, args.all))
    return int(not df["agrees"].all())


def _cautions(environments: list[tuple[dict, ...]], part: str, wrong: str) -> list[str]:
    """Return where a part of the environment should be alike in two runs and is not."""
    pairs = Counter(tuple(str(one.get(part, "none")) for one in both) for both in environments)
    return [
        f"{part} {first} against {second} in {n} figures: {wrong}"
        for (first, second), n in sorted(pairs.items())
        if first != second
    ]


def _tidy(*charts: dict) -> list[pd.DataFrame]:
    """Return a chart's measurements in each run, in the order of the data.

    Columns: series, place, value, n, low, high, count.
    """
    frames = []
    for chart in charts:
        df, given, kind = chart["df"], chart["arguments"], chart["kind"]
        source = given.get("source", "source")
        if kind == "curve" and source in df.columns:
            df = df[df[source] != "model"]
        value, series, place = _columns(chart)
        tidy = pd.DataFrame({"value": df[value].astype(float)})
        tidy.insert(0, "series", df[series].astype(str) if series else "")
        tidy["place"] = df[place] if place else ""
        # Of a share, how many trials; but an axis n says how many wait.
        trials = "n" if _unit(chart, value) == "%" and place != "n" else ""
        for column, end in {"n": trials, "low": f"{value}_low", "high": f"{value}_high"}.items():
            tidy[column] = df[end] if end in df.columns else np.nan
        tidy["count"] = df[value].dtype.kind == "i"
        if kind in ("bars", "against"):
            tidy["place"] = ", " * bool(series) + df[place].map(str)
        if kind == "timeline":
            _tidy_times(tidy, chart, df[place])
        frames.append(tidy.dropna(subset="value"))
    if charts[0]["kind"] == "curve":
        _match(frames, charts)
    return frames


def _tidy_times(tidy: pd.DataFrame, chart: dict, times: pd.Series) -> None:
    """Name what happened at each time of a timeline; of reads, tell the slow ones from others."""
    given = chart["arguments"]
    tidy["place"] = ""
    for event, (begin, end) in (given.get("shade") or {}).items():
        tidy.loc[times.between(begin, end), "place"] = f" while {event}"
    if _is_of_the_machine(chart) and not given.get("steps"):
        first = (tidy["place"] == "") & (tidy["series"] == tidy["series"].iloc[0])
        usual = tidy[first]["value"].median()
        tidy["value"] = (tidy["value"] > SLOW * usual).astype(float)
        tidy["n"] = tidy.groupby(["series", "place"])["value"].transform("size")


def _match(frames: list[pd.DataFrame], charts: Sequence[dict]) -> None:
    """Name the places of a curve so that those of two runs meet.

    That is by their x or, where x was measured, by what was asked: a column that both runs have
    alike. Without one, points are matched in order.
    """
    x, places = charts[0]["arguments"]["x"], [df["place"] for df in frames]
    counts = [dict(df.groupby("series")["place"].nunique()) for df in frames]
    measured = [chart["df"].loc[df.index] for chart, df in zip(charts, frames, strict=True)]
    alike = 2 * len(set(places[0]) & set(places[1])) >= len(set(places[0]))
    drawn = {x, *(column for column in _columns(charts[0]) if column)}
    asked = None if alike else _asked(measured[0], measured[1], drawn)
    most = max((n for run in counts for n in run.values()), default=0)
    if asked:
        unit = _unit(charts[0], asked)
        words = f" at {asked.removesuffix(f'_{unit}')} "
        named = [df[asked].map(lambda value: words + written(value, unit)) for df in measured]
    elif _is_of_the_machine(charts[0]) and most > COURSE:
        named = ["" for _ in frames]
    elif alike or counts[0] != counts[1]:
        unit = _unit(charts[0], x)
        named = [at.map(lambda value: f" at {written(value, unit)}") for at in places]
    else:
        ranks = [df.groupby("series")["place"].rank("dense") for df in frames]
        named = [rank.map(" at point {:.0f}".format) for rank in ranks]
    for df, place in zip(frames, named, strict=True):
        df["place"] = place


def _asked(first: pd.DataFrame, second: pd.DataFrame, drawn: set[str]) -> str | None:
    """Return the column that says what was asked for, if a curve stands over what was measured."""
    for column in first.columns.intersection(second.columns).difference(drawn, sort=False):
        values, others = set(first[column].dropna()), set(second[column].dropna())
        if 1 < len(values) and values == others and is_numeric_dtype(first[column]):
            return column
    return None


def _columns(chart: dict) -> tuple[str, str | None, str | None]:
    """Return the columns of a chart's values, series and places.

    Values are the ratio of `timing.summary` if it is there.
    """
    given, kind = chart["arguments"], chart["kind"]
    along = kind in ("curve", "bars", "timeline")
    value, place = (given["y"], given["x"]) if along else (given["x"], None)
    if {"ratio", "ratio_low", "ratio_high"} <= set(chart["df"].columns):
        value = "ratio"
    if kind == "against":
        return value, given["by"], given["y"]
    return value, given.get("by") if along or kind == "ecdf" else given["y"], place


def _is_of_the_machine(chart: dict) -> bool:
    """Return whether a chart shows times, rates or sizes, which another machine need not repeat."""
    column = _columns(chart)[0]
    return _unit(chart, column) not in ("", "%", "×") or " per " in column.replace("_", " ")


def _unit(chart: dict, column: str) -> str:
    return (chart["arguments"].get("units") or {}).get(column) or unit_of(column)


def _cells(chart: dict, df: pd.DataFrame) -> dict[tuple[str, str, str], np.ndarray]:
    """Return {(series, place, statistic): the number in question, then that of each resample}."""
    statistics: dict[str, Callable] = {"": np.median}
    if chart["kind"] == "ecdf" or (chart["kind"] == "curve" and (df["place"] == "").all()):
        statistics = {"": np.median, "p99 of ": _p99}
    elif chart["kind"] == "timeline":
        counts = chart["arguments"].get("steps") and df["count"].all()
        slow = "slow " if _is_of_the_machine(chart) else ""
        statistics = {"highest ": np.max} if counts else {slow: np.mean}
    return {
        (series, str(place), name): _resampled(rows, statistic, crc32(f"{series}{place}".encode()))
        for (series, place), rows in df.groupby(["series", "place"], sort=False)
        for name, statistic in statistics.items()
    }


def _resampled(rows: pd.DataFrame, statistic: Callable, seed: int) -> np.ndarray:
    """Return a statistic of a point's values, then what it is in each resample.

    seed: the point's own.
    """
    values, rng = rows["value"].to_numpy(), np.random.default_rng(seed)
    found = statistic(values)
    n, low, high, count = rows[["n", "low", "high", "count"]].to_numpy(float)[0]
    again = np.full(RESAMPLES, found)
    if len(values) >= FEW and statistic is not np.max:
        again = statistic(values[_blocks(len(values))], axis=1)
    elif len(values) > 2 and statistic is not np.max and np.isnan(n):
        positive = values.min() > 0
        spread = (np.log(values) if positive else values).std(ddof=1) / len(values) ** 0.5
        off = rng.standard_t(len(values) - 1, RESAMPLES) * spread
        again = found * np.exp(off) if positive else found + off
    elif np.isfinite([low, high]).all():
        ends = found + WIDER * (np.array([low, high]) - found)
        again = rng.permutation(np.resize(ends, RESAMPLES))
    elif count and found >= (PEAK if statistic is np.max else MANY):
        again = rng.gamma(again + 0.5)
    if np.isfinite(n):
        again = rng.beta(again * n + 0.5, (1 - again) * n + 0.5)
    return np.r_[found, again]


def _blocks(n: int) -> np.ndarray:
    """Return which of n values each resample takes, in circular blocks, the same for all points."""
    length = -(-n // BLOCKS)
    starts = np.random.default_rng(0).integers(n, size=(RESAMPLES, -(-n // length)))
    return (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :n] % n


def _p99(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    return np.quantile(values, 0.99, axis=axis, method="inverted_cdf")


def _findings(cells: dict[tuple, np.ndarray], base: tuple | None) -> dict[str, np.ndarray]:
    """Return what a chart claims.

    That is its numbers as they are or, with a base, their ratios to the first series or place.
    """
    if base is None:
        return {
            _named(name, series, place): values for (series, place, name), values in cells.items()
        }
    found = {}
    for key, values in cells.items():
        series, place, name = key
        against, claim = base, f"{_named(name, series, place)} ÷ {_named(*base[:2])}"
        if series != base[0] and (beside := (base[0], place, base[2])) in cells:
            against, claim = beside, f"{_named(name, series)} ÷ {_named(base[0], place)}"
        if key != base and against in cells:
            found[claim] = values / cells[against]
    return found


def _named(*parts: str) -> str:
    return " ".join("".join(parts).split()) or "all"


def _table(
    findings: Mapping[str, list[np.ndarray | None]] | Iterable[str], runs: float = 0.0
) -> pd.DataFrame:
    """Return findings as a frame, with an allowance for what differs from run to run.

    Those without numbers disagree.
    """
    rows = []
    for finding in findings:
        sides = findings[finding] if isinstance(findings, Mapping) else [None, None]
        rows.append((finding, *_interval(sides[0]), *_interval(sides[1])))
    sides = [f"{side}{end}" for side in ("first", "second") for end in ("", "_low", "_high")]
    df = pd.DataFrame(rows, columns=["finding", *sides])
    df["difference"] = df["second"] / df["first"].replace(0, np.nan) - 1
    df["alone"] = _agree(df)
    wide = df.copy()
    wide[["first_low", "second_low"]] /= np.exp(runs * ENDS)
    wide[["first_high", "second_high"]] *= np.exp(runs * ENDS)
    df["agrees"] = df["alone"] | _agree(wide)
    return df


def _interval(values: np.ndarray | None) -> tuple[float, float, float]:
    if values is None:
        return (np.nan,) * 3
    return values[0], *np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])


def _agree(df: pd.DataFrame) -> pd.Series:
    near, far = np.sort(df[["first", "second"]].abs().to_numpy(), axis=1).T
    close = (df["first"] == df["second"]) | (
        (df["first"] * df["second"] > 0) & (far < (1 + CLOSE) * near)
    )
    return close | ((df["first_low"] <= df["second_high"]) & (df["second_low"] <= df["first_high"]))


def _line(row: Any) -> str:
    """Return a finding in words."""
    away = "" if np.isnan(row.difference) else f"{100 * row.difference:+.0f} %"
    first = _with_interval(row.first, row.first_low, row.first_high)
    second = _with_interval(row.second, row.second_low, row.second_high)
    verdict = "" if row.alone else "  as runs do" if row.agrees else "  differs"
    return f"  {row.finding:<48} {first:>24} {second:>24} {away:>8}{verdict}"


def _with_interval(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.3g}" + (f" ({low:.3g} to {high:.3g})" if low < high else "")


if __name__ == "__main__":
    raise SystemExit(main())
