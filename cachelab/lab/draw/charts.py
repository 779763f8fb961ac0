"""Charts: one function a kind, a DataFrame in, Axes out, in the house style.

All take the tidy frame first and share these keywords:

title   the finding, as a sentence              xlabel, ylabel   instead of the column's own name
note    small print; what whiskers mean, n      units            {column: unit} beyond UNITS
alt     the chart in words; made if missing     roles            {name: role}, or one role for all
ax      axes to draw in, as from `panels`       name             file name of the figure kept

Seconds are written as ns, µs, ms or s, a share of 1 as per cent. An axis turns logarithmic where
the data span more than 30 times, unless logx or logy says otherwise; any other axis of positive
values begins at 0. Names keep the order in which they appear in the frame. Figures are kept when
the environment variable CACHELAB_CHARTS names a folder: NAME.svg, NAME.png, NAME.csv (the data),
NAME.json (kind, arguments, environment); `redraw` draws them again.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cachelab.lab.draw import figures
from cachelab.lab.draw.canvas import ChartAxes, house_style
from cachelab.lab.draw.canvas import subplots as panels
from cachelab.lab.draw.figures import environment, keep
from cachelab.lab.draw.layout import Drawn, Line, finish, is_log, rows_of, set_axis
from cachelab.lab.draw.roles import BLACK, PLAIN, ROLES, SPARE, Look, Roles, assign
from cachelab.lab.draw.units import UNITS, Names, axis_label, unit_of, written

__all__ = [
    "ROLES",
    "UNITS",
    "against",
    "bars",
    "curve",
    "ecdf",
    "environment",
    "keep",
    "panels",
    "ranking",
    "redraw",
    "strip",
    "timeline",
]

KINDS: dict[str, Callable[..., Axes]] = {}
MANY = 2000  # dots: more are kept as a picture, since no browser likes a file of so many circles
_OFFSET = {"textcoords": "offset points"}
_WHISKER = {"fmt": "none", "ecolor": BLACK, "elinewidth": 2.2, "capsize": 6, "capthick": 2.2}
_BAR = {"color": BLACK, "linewidth": 3.5, "solid_capstyle": "butt", "zorder": 4}
_BESIDE = _OFFSET | {
    "va": "center",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5},
}
_MEDIAN = _OFFSET | {"ha": "center", "va": "bottom", "fontweight": "bold"}
_SHADED = _OFFSET | {"ha": "center", "va": "top", "fontsize": 13, "gid": "event"}
_ON_TOP = _OFFSET | {"ha": "center", "va": "bottom", "fontsize": 13, "gid": "value"}


def redraw(folder: str | Path) -> list[Path]:
    """Draw every kept figure of a folder again from its data; return the SVG files written.

    Raises:
        FigureError: A file is missing or malformed; then nothing has changed.
    """
    return figures.redraw(folder, KINDS)


@dataclass(frozen=True)
class Plot:
    """A chart in the making: checked data, axes, and what the shared keywords say of them."""

    df: pd.DataFrame
    ax: Axes
    units: Names
    roles: Roles | str | None
    xlabel: str | None
    ylabel: str | None

    def label(self, x: str, y: str) -> None:
        """Write on both axes what was asked for, else these words."""
        self.ax.set(
            xlabel=x if self.xlabel is None else self.xlabel,
            ylabel=y if self.ylabel is None else self.ylabel,
        )

    def written(self, value: object, column: str) -> str:
        """Return a value of a column for people."""
        return written(value, self.units[column])

    def groups(self, by: str | None) -> dict[Any, pd.DataFrame]:
        """Return the rows of each value of ``by`` in order of appearance, or all under ""."""
        return {"": self.df} if by is None else dict(iter(self.df.groupby(by, sort=False)))

    def set_axis(
        self, which: str, column: str, log: bool | None, ticks: Sequence[float] = ()
    ) -> str:
        """Set an axis for a column's data; return what to say of it."""
        return set_axis(self.ax, which, self.df[column], self.units[column], log, ticks)


def _shared(
    df: pd.DataFrame,
    *,
    title: str,
    name: str | None = None,
    ax: Axes | None = None,
    alt: str | None = None,
    note: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    units: Names | None = None,
    roles: Roles | str | None = None,
) -> None:
    """Name the parameters that all charts share; only its signature is of use."""


def chart(draw: Callable[..., Drawn]) -> Callable[..., Axes]:
    """Turn a drawer into a chart function.

    Before it come the shared keywords and checks; around it style, title, names, alternative text
    and keeping.
    """
    own = list(inspect.signature(draw).parameters.values())[1:]
    df, *shared = inspect.signature(_shared).parameters.values()
    columns = [one for one in own if one.kind is one.POSITIONAL_OR_KEYWORD]
    options = [one for one in own if one.kind is one.KEYWORD_ONLY]
    signature = inspect.Signature([df, *columns, *shared, *options], return_annotation=Axes)

    @functools.wraps(draw)
    def drawn(*args: object, **kwargs: object) -> Axes:
        call = signature.bind(*args, **kwargs)
        unkept = ("df", "ax", "alt", "name")
        arguments = {key: value for key, value in call.arguments.items() if key not in unkept}
        call.apply_defaults()
        given = call.arguments
        df = _checked(given["df"], {key: given.get(key) for key in ("x", "y", "by", "low", "high")})
        units = {column: unit_of(column) for column in df.columns} | dict(given["units"] or {})
        with house_style():
            ax: ChartAxes = given["ax"] or panels(1)[0]
            ax.spines[["top", "right"]].set_visible(False)
            plot = Plot(df, ax, units, given["roles"], given["xlabel"], given["ylabel"])
            done = draw(plot, **{one.name: given[one.name] for one in own})
            finish(ax, given["title"], given["note"] or done.note, done)
        ax.alt = given["alt"] or f"{given['title'].rstrip('.')}. {done.words}"
        kept = {"kind": draw.__name__, "data": df, "arguments": arguments, "alt": ax.alt}
        keep(ax, given["name"], kept, KINDS)
        return ax

    vars(drawn)["__signature__"] = signature
    KINDS[draw.__name__] = drawn
    return drawn


@chart
def ecdf(plot: Plot, x: str, by: str | None = None, *, logx: bool | None = None) -> Drawn:
    """Draw the cumulative share of measurements at or below each x, a line for each ``by``."""
    groups, lines, words = plot.groups(by), [], []
    looks = assign(groups, plot.roles, SPARE[0])
    for group, rows in groups.items():
        look, steps = looks[group], np.linspace(0, 1, min(len(rows), 1000) + 1)
        quantiles = functools.partial(np.quantile, rows[x], method="inverted_cdf")
        values, share = np.repeat(quantiles(steps[1:]), 2), np.repeat(steps, 2)[1:-1]
        plot.ax.plot(values, share, **look.stroke, clip_on=False)
        lines.append((str(group), replace(look, marker=""), values, share))
        half, most = (plot.written(value, x) for value in quantiles([0.5, 0.99]))
        words.append(f"{_prefix(group, by)}half take at most {half}, 99 % at most {most}")
    log = plot.set_axis("x", x, logx)
    set_axis(plot.ax, "y", pd.Series([0.0, 1.0]), "%", False)
    plot.label(axis_label(x, plot.units), "share of calls")
    about = f"Cumulative share of calls against {plot.ax.get_xlabel()}{log}: "
    return Drawn(about + "; ".join(words) + ".", _counted(groups), lines if by else [], inside=True)


@chart
def strip(plot: Plot, x: str, y: str, *, logx: bool | None = None) -> Drawn:
    """Draw one dot a measurement, a row for each category ``y``, and a bar at each row's median."""
    groups, words, shake = plot.groups(y), [], np.random.default_rng(0)
    looks = assign(groups, plot.roles, PLAIN, repeat=True)
    rows_of(plot.ax, list(groups), per_row=0.85)
    for row, (group, rows) in enumerate(groups.items()):
        look, middle = looks[group], float(rows[x].median())
        _dots(plot.ax, rows[x], row + shake.uniform(-0.18, 0.18, len(rows)), look)
        plot.ax.plot([middle, middle], [row - 0.28, row + 0.28], **_BAR)
        plot.ax.annotate(plot.written(middle, x), (middle, row - 0.3), (0, 1), **_MEDIAN)
        least, most = plot.written(rows[x].min(), x), plot.written(rows[x].max(), x)
        words.append(f"{group}: median {plot.written(middle, x)}, from {least} to {most}")
    log = plot.set_axis("x", x, logx)
    plot.label(axis_label(x, plot.units), "")
    note = f"a dot a measurement, a bar at the median; {_counted(groups)}"
    return Drawn(f"Dots along {plot.ax.get_xlabel()}{log}. " + "; ".join(words) + ".", note)


@chart
def ranking(
    plot: Plot,
    x: str,
    y: str,
    low: str | None = None,
    high: str | None = None,
    *,
    logx: bool | None = None,
    sort: bool = True,
) -> Drawn:
    """Draw one value a category ``y``, smallest on top unless ``sort`` is false, with its value.

    Marks are bars from 0, or dots on a logarithmic axis; ``low`` and ``high`` name columns with
    the ends of a whisker.
    """
    df = plot.df.sort_values(x, kind="stable") if sort else plot.df
    looks = assign(df[y], plot.roles, PLAIN, repeat=True)
    rows_of(plot.ax, list(df[y]), per_row=0.5)
    is_dots = is_log(df[x], logx)
    ends = df[[column for column in (x, low, high) if column]]
    for row, value in enumerate(df[x]):
        look, near, far = looks[df[y].iloc[row]], ends.iloc[row].min(), ends.iloc[row].max()
        if is_dots:
            ink = look.mark if look.hollow else {"color": look.color}
            plot.ax.plot(value, row, look.marker, clip_on=False, **ink | {"markersize": 14})
        else:
            plot.ax.barh(row, value, 0.6, **look.fill)
        if low or high:
            whisker = _WHISKER | {"zorder": 1.8 if is_dots else 3}
            plot.ax.errorbar(value, row, xerr=[[value - near], [far - value]], **whisker)
        offset = (14 if is_dots else 8, 0)
        plot.ax.annotate(plot.written(value, x), (far, row), offset, **_BESIDE)
    plot.ax.grid(is_dots, axis="y")  # leads the eye from a dot to its name
    every = pd.Series(ends.to_numpy().ravel())  # whiskers may reach far beyond the marks
    log = set_axis(plot.ax, "x", every, plot.units[x], is_dots)
    plot.label(axis_label(x, plot.units), "")
    pairs = zip(df[y], df[x], strict=True)
    words = ", ".join(f"{group} {plot.written(value, x)}" for group, value in pairs)
    about = plot.ax.get_xlabel().capitalize()
    return Drawn(f"{about}{log}: {words}.", _whiskers(low, high))


@chart
def against(
    plot: Plot,
    x: str,
    y: str,
    by: str,
    low: str | None = None,
    high: str | None = None,
    *,
    logx: bool | None = None,
) -> Drawn:
    """Draw the values of each category ``y`` in a row of its own, a mark for each ``by``.

    So what is said of a thing stands against what was seen of it. ``low`` and ``high`` name columns
    with the ends of a whisker.
    """
    groups, places, lines, words = plot.groups(by), list(dict.fromkeys(plot.df[y])), [], []
    looks = assign(groups, plot.roles, SPARE[0])
    rows_of(plot.ax, places, per_row=0.2 + 0.2 * len(groups))
    for i, (group, rows) in enumerate(groups.items()):
        look, shift = looks[group], 0.25 * (i - (len(groups) - 1) / 2)
        at = [places.index(place) + shift for place in rows[y]]
        marker = {"marker": look.marker or "|", "linestyle": "none", "markersize": 9}
        plot.ax.plot(rows[x], at, clip_on=False, **look.mark | {"markeredgewidth": 1.5} | marker)
        if low or high:
            ends = [rows[x] - rows[low or x], rows[high or x] - rows[x]]
            plot.ax.errorbar(rows[x], at, xerr=ends, **_WHISKER | {"ecolor": look.color})
        lines.append((str(group), replace(look, marker=look.marker or "|"), rows[x][:0], at[:0]))
        for place, some in rows.groupby(y, sort=False):
            told = ", ".join(plot.written(value, x) for value in some[x])
            words.append((places.index(place), f"{group} {told}"))
    for row in range(1, len(places)):
        plot.ax.axhline(row - 0.5, color=BLACK, alpha=0.15, linewidth=1)
    ends = plot.df[[column for column in (x, low, high) if column]]
    log = set_axis(plot.ax, "x", pd.Series(ends.to_numpy().ravel()), plot.units[x], logx)
    plot.label(axis_label(x, plot.units), "")
    said = (f"{one}: " + ", ".join(t for at, t in words if at == i) for i, one in enumerate(places))
    about = f"{plot.ax.get_xlabel().capitalize()}{log}, a row each. "
    return Drawn(about + "; ".join(said) + ".", _whiskers(low, high), lines)


@chart
def curve(
    plot: Plot,
    x: str,
    y: str,
    by: str | None = None,
    source: str = "source",
    low: str | None = None,
    high: str | None = None,
    *,
    logx: bool | None = None,
    logy: bool | None = None,
) -> Drawn:
    """Draw y against x, a series for each value of ``by``: points, and lines for models.

    Rows whose ``source`` is "model" are the line, the others are measurements. Points that have no
    model are joined through the median at each x. ``low`` and ``high`` name columns with the ends
    of a whisker.
    """
    df, groups, lines, words = plot.df, plot.groups(by), [], []
    looks = assign(groups, plot.roles, SPARE[0])
    modelled = source in df.columns and bool((df[source] == "model").any())
    for group, rows in groups.items():
        look = looks[group]
        is_model = rows[source].eq("model") if modelled else pd.Series(False, rows.index)
        seen, theory = rows[~is_model].sort_values(x), rows[is_model].sort_values(x)
        middle = seen.groupby(x)[y].median()
        line = theory.set_index(x)[y] if len(theory) else middle
        plot.ax.plot(line.index, line, **look.stroke, clip_on=False)
        if len(seen):  # an empty line that is not clipped has no place, and the layout gives up
            marks = {"clip_on": False, "zorder": 3} | look.mark
            plot.ax.plot(seen[x], seen[y], look.marker or "o", **marks)
        if (low or high) and len(seen):
            ends = [seen[y] - seen[low or y], seen[high or y] - seen[y]]
            plot.ax.errorbar(seen[x], seen[y], yerr=ends, **_WHISKER | {"ecolor": look.color})
        lines.append((str(group), look, line.index.to_numpy(), line.to_numpy()))
        ends = (middle if len(middle) else line).iloc[[0, -1]]
        steps = (f"{plot.written(v, y)} at {plot.written(at, x)}" for at, v in ends.items())
        words.append(f"{_prefix(group, by)}{' to '.join(steps)}")
    at = df[x][df[source] != "model"] if modelled else df[x]
    logs = plot.set_axis("x", x, logx, at.unique()), plot.set_axis("y", y, logy)
    plot.label(axis_label(x, plot.units), axis_label(y, plot.units))
    notes = ["points: measured, line: model"] if modelled else []
    note = "; ".join(notes + [words for words in [_whiskers(low, high)] if words])
    about = f"{plot.ax.get_ylabel().capitalize()}{logs[1]} against {plot.ax.get_xlabel()}{logs[0]}"
    about += ", measured points over a model line: " if modelled else ": "
    return Drawn(about + "; ".join(words) + ".", note, lines if by else [])


@chart
def bars(
    plot: Plot,
    x: str,
    y: str,
    by: str | None = None,
    low: str | None = None,
    high: str | None = None,
) -> Drawn:
    """Draw upright bars from 0, one a category ``x`` (for each ``by``), with their values on top.

    ``low`` and ``high`` name columns with the ends of a whisker.
    """
    groups, places, words = plot.groups(by), list(dict.fromkeys(plot.df[x])), []
    looks = assign(groups if by else places, plot.roles, PLAIN, repeat=not by)
    wide = (0.86 if by else 0.7) / len(groups)
    for i, (group, rows) in enumerate(groups.items()):
        shift = (i - (len(groups) - 1) / 2) * wide
        at = [places.index(place) + shift for place in rows[x]]
        ink = looks[group].hatched if by else {"color": [looks[one].color for one in rows[x]]}
        plot.ax.bar(at, rows[y], wide * 0.94, **ink)
        top = rows[high] if high else rows[y]
        if low or high:
            ends = [rows[y] - rows[low or y], top - rows[y]]
            plot.ax.errorbar(at, rows[y], yerr=ends, **_WHISKER)
        for place, value, end in zip(at, rows[y], top, strict=True):
            plot.ax.annotate(plot.written(value, y), (place, end), (0, 4), **_ON_TOP)
        pairs = zip(rows[x], rows[y], strict=True)
        values = (f"{place} {plot.written(value, y)}" for place, value in pairs)
        words.append(_prefix(group, by) + ", ".join(values))
    least = plot.df[[column for column in (y, low) if column]].min(axis=1)
    set_axis(plot.ax, "y", least if least.min() < 0 else plot.df[y], plot.units[y], False)
    if least.min() < 0:
        plot.ax.axhline(0, color=BLACK, linewidth=1)
    chars = min(14, 60 // len(places))
    names = [textwrap.fill(written(place, ""), chars) for place in places]
    plot.ax.set_xticks(range(len(places)), names)
    plot.ax.grid(False, axis="x")
    plot.label("", axis_label(y, plot.units))
    lines: list[Line] = [(str(group), looks[group], None, None) for group in groups] if by else []
    about = f"Bars of {plot.ax.get_ylabel()}: "
    return Drawn(about + "; ".join(words) + ".", _whiskers(low, high), lines)


@chart
def timeline(
    plot: Plot,
    x: str,
    y: str,
    by: str | None = None,
    *,
    logy: bool | None = None,
    steps: bool = False,
    xlim: Sequence[float] | None = None,
    ylim: Sequence[float] | None = None,
    shade: Mapping[str, Sequence[float]] | None = None,
) -> Drawn:
    """Draw what happened over time: dots or, with ``steps``, a number that holds until the next.

    xlim, ylim: (lowest, highest), the same for every variant of an experiment. shade: {what
    happened: (from, to)}, drawn in grey behind the data with its name on top.
    """
    ax, groups, lines, words = plot.ax, plot.groups(by), [], []
    looks = assign(groups, plot.roles, SPARE[0])
    for event, (begin, end) in (shade or {}).items():
        ax.axvspan(begin, end, color=BLACK, alpha=0.09, linewidth=0, zorder=0)
        spot = ((begin + end) / 2, 1)
        ax.annotate(event, spot, (0, -4), xycoords=ax.get_xaxis_transform(), **_SHADED)
    for group, rows in groups.items():
        look, rows = looks[group], rows.sort_values(x, kind="stable")
        if steps:
            ink = look.stroke | ({} if by else {"linestyle": "-"})
            ax.plot(rows[x], rows[y], **ink, drawstyle="steps-post")
            if by is None:
                fill = {"color": look.color, "alpha": 0.25, "linewidth": 0}
                ax.fill_between(rows[x], rows[y], step="post", **fill)
        else:
            dots = {"color": look.color, "markersize": 6, "alpha": 0.5, "markeredgewidth": 0}
            if look.hollow:
                dots |= {"markerfacecolor": "none", "markeredgewidth": 1.5, "alpha": 0.9}
            ax.plot(rows[x], rows[y], look.marker or "o", rasterized=len(rows) > MANY, **dots)
        key = replace(look, marker="") if steps else look
        lines.append((str(group), key, rows[x][:0], rows[y][:0]))  # no ends: for a legend
        half = "" if steps else f"half at most {plot.written(rows[y].median(), y)}, "
        ends = {"lowest": rows[y].argmin()} if plot.units[y] == "%" else {}
        ends["highest"] = rows[y].argmax()
        found = (
            f"{end} {plot.written(rows[y].iloc[at], y)} at {plot.written(rows[x].iloc[at], x)}"
            for end, at in ends.items()
        )
        words.append(f"{_prefix(group, by)}{half}{', '.join(found)}")
    plot.set_axis("x", x, False)
    log = _set_heights(plot, y, logy, ylim)
    ax.set(xlim=xlim, ylim=ylim)
    plot.label(axis_label(x, plot.units), axis_label(y, plot.units))
    about = f"{ax.get_ylabel().capitalize()}{log} over time: "
    note = "" if steps else _counted(groups)
    return Drawn(about + "; ".join(words) + ".", note, lines if by else [])


def _checked(df: pd.DataFrame, columns: dict[str, str | None]) -> pd.DataFrame:
    """Return the frame with a named index as columns; ValueError unless it has what is asked."""
    df = df.reset_index() if any(name is not None for name in df.index.names) else df
    for argument, column in columns.items():
        if column is not None and column not in df.columns:
            has = ", ".join(map(repr, df.columns))
            raise ValueError(f"{argument}={column!r} is no column of the frame: it has {has}")
    if df.empty:
        raise ValueError("the frame has no rows: there is nothing to draw")
    return df


def _dots(ax: Axes, x: pd.Series, heights: np.ndarray, look: Look) -> None:
    """Draw measurements as dots, smaller and paler where they are many."""
    size, alpha = (60, 0.6) if len(x) <= 200 else (22, 0.35)
    hollow = {"facecolor": "none", "edgecolor": look.color}
    ink = hollow if look.hollow else {"color": look.color, "linewidths": 0}
    how = {"marker": look.marker, "alpha": alpha, "clip_on": False, "rasterized": len(x) > MANY}
    ax.scatter(x, heights, size, **how, **ink)


def _set_heights(plot: Plot, y: str, log: bool | None, ylim: Sequence[float] | None) -> str:
    """Set the y axis of a timeline, which is as long as its limits say."""
    if ylim and ylim[0] <= 0:
        return plot.set_axis("y", y, False)
    if ylim and log:
        shown = pd.Series([*plot.df[y], *ylim], name=y)
        return set_axis(plot.ax, "y", shown, plot.units[y], True)
    return plot.set_axis("y", y, log)


def _prefix(group: object, by: str | None) -> str:
    return f"{group}: " if by else ""


def _counted(groups: Mapping[Any, pd.DataFrame]) -> str:
    counts = {str(group): len(rows) for group, rows in groups.items()}
    if len(set(counts.values())) == 1:
        return f"n = {next(iter(counts.values())):,}" + (" each" if len(counts) > 1 else "")
    return "n = " + ", ".join(f"{n:,} {group}" for group, n in counts.items())


def _whiskers(low: str | None, high: str | None) -> str:
    ends = [column.replace("_", " ") for column in (low, high) if column]
    return "whiskers: " + " to ".join(ends) if ends else ""
