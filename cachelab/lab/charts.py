"""Charts: one function a kind, a DataFrame in, Axes out, in the house style; a named chart is kept with its data.

All take the tidy frame first and share these keywords:

title   the finding, as a sentence              xlabel, ylabel   instead of the column's own name
note    small print; what whiskers mean, n      units            {column: unit} where UNITS does not know it
alt     the chart in words; made if missing     roles            {name in the data: role}, or one role for all
ax      axes to draw in, as from `panels`       name             file name under which the figure is kept

Seconds are written as ns, µs, ms or s, a share of 1 as per cent. An axis turns logarithmic where the data span more than
30 times, unless logx or logy says otherwise; any other axis of positive values begins at 0. Names keep the order in which
they appear in the frame. Figures are kept when the environment variable CACHELAB_CHARTS names a folder: NAME.svg, NAME.png,
NAME.csv (the data), NAME.json (kind, arguments, environment); `redraw` draws them again.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cachelab.lab.figures import environment, house_style, keep, panels, redraw
from cachelab.lab.layout import Drawn, finish, is_log, rows_of, scale
from cachelab.lab.looks import BLACK, PLAIN, ROLES, SPARE, UNITS, Names, Roles, assign, axis_label, unit_of, written

__all__ = ["ROLES", "UNITS", "bars", "curve", "ecdf", "environment", "panels", "ranking", "redraw", "strip", "timeline"]

KINDS: dict[str, Callable[..., Axes]] = {}


def chart(draw: Callable[..., Drawn]) -> Callable[..., Axes]:
    """Turn a drawer into a chart function: checks before it; style, title, names, alt text and keeping around it."""
    signature = inspect.signature(draw)

    @functools.wraps(draw)
    def drawn(*args: object, **kwargs: object) -> Axes:
        call = signature.bind(*args, **kwargs)
        arguments = {key: value for key, value in call.arguments.items() if key not in ("df", "ax", "alt", "name")}
        call.apply_defaults()
        given = call.arguments
        given["df"] = _checked(given["df"], {key: given.get(key) for key in ("x", "y", "by", "low", "high")})
        given["units"] = {c: unit_of(c) for c in given["df"].columns} | dict(given["units"] or {})
        name = given["name"]
        with house_style():
            ax = given["ax"] = given["ax"] or panels(1)[0]
            ax.spines[["top", "right"]].set_visible(False)
            done = draw(**given)
            finish(ax, given["title"], given["note"] or done.note, done)
        ax.alt = given["alt"] or f"{given['title'].rstrip('.')}. {done.words}"
        keep(ax, name, {"kind": draw.__name__, "data": given["df"], "arguments": arguments, "alt": ax.alt})
        return ax

    drawn.__signature__ = signature.replace(return_annotation=Axes)
    KINDS[draw.__name__] = drawn
    return drawn


@chart
def ecdf(
    df: pd.DataFrame, x: str, by: str | None = None, *,
    title: str, name: str | None = None, ax: Axes | None = None, alt: str | None = None, note: str | None = None,
    xlabel: str | None = None, ylabel: str | None = None, units: Names | None = None, roles: Roles | str | None = None,
    logx: bool | None = None,
) -> Drawn:  # fmt: skip
    """Draw the cumulative share of measurements at or below each x, a line for each value of ``by``."""
    groups = _groups(df, by)
    looks, lines, words = assign(groups, roles, SPARE[0]), [], []
    for group, rows in groups.items():
        look, steps = looks[group], np.linspace(0, 1, min(len(rows), 1000) + 1)
        values, share = np.repeat(np.quantile(rows[x], steps[1:], method="inverted_cdf"), 2), np.repeat(steps, 2)[1:-1]
        ax.plot(values, share, **look.stroke, clip_on=False)
        lines.append((str(group), replace(look, marker=""), values, share))
        half, most = (written(q, units[x]) for q in np.quantile(rows[x], [0.5, 0.99], method="inverted_cdf"))
        words.append(f"{_prefix(group, by)}half take at most {half}, 99 % at most {most}")
    log = scale(ax, "x", df[x], units[x], logx)
    scale(ax, "y", pd.Series([0.0, 1.0]), "%", False)
    ax.set(xlabel=xlabel or axis_label(x, units), ylabel=ylabel or "share of calls")
    about = f"Cumulative share of calls against {ax.get_xlabel()}{log}: "
    return Drawn(about + "; ".join(words) + ".", _counted(groups), lines if by else [], inside=True)


@chart
def strip(
    df: pd.DataFrame, x: str, y: str, *,
    title: str, name: str | None = None, ax: Axes | None = None, alt: str | None = None, note: str | None = None,
    xlabel: str | None = None, ylabel: str | None = None, units: Names | None = None, roles: Roles | str | None = None,
    logx: bool | None = None,
) -> Drawn:  # fmt: skip
    """Draw one dot a measurement, a row for each category ``y``, and a bar with its value at each row's median."""
    groups = _groups(df, y)
    looks, words, shake = assign(groups, roles, PLAIN, repeat=True), [], np.random.default_rng(0)
    rows_of(ax, list(groups), per_row=0.85)
    for row, (group, rows) in enumerate(groups.items()):
        look, middle = looks[group], float(rows[x].median())
        size, alpha = (60, 0.6) if len(rows) <= 200 else (22, 0.35)
        height = row + shake.uniform(-0.18, 0.18, len(rows))
        crowd = len(rows) > 2000  # as a picture: thousands of circles make a file that no browser likes
        ink = {"facecolor": "none", "edgecolor": look.color} if look.hollow else {"color": look.color, "linewidths": 0}
        ax.scatter(rows[x], height, size, marker=look.marker, alpha=alpha, clip_on=False, rasterized=crowd, **ink)
        ax.plot([middle, middle], [row - 0.28, row + 0.28], color=BLACK, linewidth=3.5, solid_capstyle="butt", zorder=4)
        ax.annotate(written(middle, units[x]), (middle, row - 0.3), (0, 1), textcoords="offset points", **_MEDIAN)
        words.append(f"{group}: median {written(middle, units[x])}, from {_range(rows[x], units[x])}")
    log = scale(ax, "x", df[x], units[x], logx)
    ax.set(xlabel=xlabel or axis_label(x, units), ylabel=ylabel or "")
    note = f"a dot a measurement, a bar at the median; {_counted(groups)}"
    return Drawn(f"Dots along {ax.get_xlabel()}{log}. " + "; ".join(words) + ".", note)


@chart
def ranking(
    df: pd.DataFrame, x: str, y: str, low: str | None = None, high: str | None = None, *,
    title: str, name: str | None = None, ax: Axes | None = None, alt: str | None = None, note: str | None = None,
    xlabel: str | None = None, ylabel: str | None = None, units: Names | None = None, roles: Roles | str | None = None,
    logx: bool | None = None, sort: bool = True,
) -> Drawn:  # fmt: skip
    """Draw one value a category ``y``, smallest on top unless ``sort`` is false, each written beside its mark.

    Marks are bars from 0, or dots on a logarithmic axis; ``low`` and ``high`` name columns with the ends of a whisker.
    """
    df = df.sort_values(x, kind="stable") if sort else df
    looks = assign(df[y], roles, PLAIN, repeat=True)
    rows_of(ax, list(df[y]), per_row=0.5)
    ends, log = df[[column for column in (x, low, high) if column]], is_log(df[x], logx)
    for row, value in enumerate(df[x]):
        look, (near, far) = looks[df[y].iloc[row]], (ends.iloc[row].min(), ends.iloc[row].max())
        if log:
            ink = look.mark if look.hollow else {"color": look.color}
            ax.plot(value, row, look.marker, clip_on=False, **ink | {"markersize": 14})
        else:
            ax.barh(row, value, 0.6, **look.fill)
        if low or high:
            ax.errorbar(value, row, xerr=[[value - near], [far - value]], zorder=1.8 if log else 3, **_WHISKER)
        ax.annotate(written(value, units[x]), (far, row), (14 if log else 8, 0), textcoords="offset points", **_BESIDE)
    ax.grid(bool(log), axis="y")  # leads the eye from a dot to its name
    log = scale(ax, "x", df[x], units[x], log)
    ax.set(xlabel=xlabel or axis_label(x, units), ylabel=ylabel or "")
    words = ", ".join(f"{group} {written(value, units[x])}" for group, value in zip(df[y], df[x], strict=True))
    return Drawn(f"{ax.get_xlabel().capitalize()}{log}: {words}.", _whiskers(low, high))


@chart
def curve(
    df: pd.DataFrame, x: str, y: str, by: str | None = None, source: str = "source", low: str | None = None,
    high: str | None = None, *,
    title: str, name: str | None = None, ax: Axes | None = None, alt: str | None = None, note: str | None = None,
    xlabel: str | None = None, ylabel: str | None = None, units: Names | None = None, roles: Roles | str | None = None,
    logx: bool | None = None, logy: bool | None = None,
) -> Drawn:  # fmt: skip
    """Draw y against x, a series for each value of ``by``: measurements as points, rows of the ``source`` "model" as a line.

    Points that have no model are joined through the median at each x. ``low`` and ``high`` name columns with the ends of a
    whisker.
    """
    groups = _groups(df, by)
    looks, lines, words = assign(groups, roles, SPARE[0]), [], []
    modelled = source in df.columns and bool((df[source] == "model").any())
    for group, rows in groups.items():
        look, is_model = looks[group], rows[source].eq("model") if modelled else pd.Series(False, rows.index)
        seen, theory = rows[~is_model].sort_values(x), rows[is_model].sort_values(x)
        middle = seen.groupby(x)[y].median()
        line = theory.set_index(x)[y] if len(theory) else middle
        ax.plot(line.index, line, **look.stroke, clip_on=False)
        if len(seen):  # an empty line that is not clipped has no place, and the layout gives up
            ax.plot(seen[x], seen[y], look.marker or "o", clip_on=False, zorder=3, **look.mark)
        if (low or high) and len(seen):
            ends = [seen[y] - seen[low or y], seen[high or y] - seen[y]]
            ax.errorbar(seen[x], seen[y], yerr=ends, **_WHISKER | {"ecolor": look.color})
        lines.append((str(group), look, line.index.to_numpy(), line.to_numpy()))
        told = (middle if len(middle) else line).iloc[[0, -1]]
        path = " to ".join(f"{written(v, units[y])} at {written(at, units[x])}" for at, v in told.items())
        words.append(f"{_prefix(group, by)}{path}")
    at = df[x][df[source] != "model"] if modelled else df[x]
    log = scale(ax, "x", df[x], units[x], logx, at.unique()), scale(ax, "y", df[y], units[y], logy)
    ax.set(xlabel=xlabel or axis_label(x, units), ylabel=ylabel or axis_label(y, units))
    note = "; ".join(filter(None, ["points: measured, line: model" if modelled else "", _whiskers(low, high)]))
    about = f"{ax.get_ylabel().capitalize()}{log[1]} against {ax.get_xlabel()}{log[0]}"
    about += ", measured points over a model line: " if modelled else ": "
    return Drawn(about + "; ".join(words) + ".", note, lines if by else [])


@chart
def bars(
    df: pd.DataFrame, x: str, y: str, by: str | None = None, low: str | None = None, high: str | None = None, *,
    title: str, name: str | None = None, ax: Axes | None = None, alt: str | None = None, note: str | None = None,
    xlabel: str | None = None, ylabel: str | None = None, units: Names | None = None, roles: Roles | str | None = None,
) -> Drawn:  # fmt: skip
    """Draw upright bars from 0, one a category ``x`` (for each value of ``by``), each with its value on top."""
    groups, places = _groups(df, by), list(dict.fromkeys(df[x]))
    looks = assign(groups, roles, PLAIN) if by else assign(places, roles, PLAIN, repeat=True)
    wide, words = (0.86 if by else 0.7) / len(groups), []
    for i, (group, rows) in enumerate(groups.items()):
        at = [places.index(place) + (i - (len(groups) - 1) / 2) * wide for place in rows[x]]
        if by:
            ax.bar(at, rows[y], wide * 0.94, **looks[group].hatched)
        else:
            ax.bar(at, rows[y], wide * 0.94, color=[looks[place].color for place in rows[x]])
        top = rows[high] if high else rows[y]
        if low or high:
            ax.errorbar(at, rows[y], yerr=[rows[y] - rows[low or y], top - rows[y]], **_WHISKER)
        for place, value, end in zip(at, rows[y], top, strict=True):
            ax.annotate(written(value, units[y]), (place, end), (0, 4), textcoords="offset points", **_ON_TOP)
        told = (f"{place} {written(value, units[y])}" for place, value in zip(rows[x], rows[y], strict=True))
        words.append(_prefix(group, by) + ", ".join(told))
    scale(ax, "y", df[y], units[y], False)
    ax.set_xticks(
        range(len(places)), [textwrap.fill(written(place, ""), min(14, 60 // len(places))) for place in places]
    )
    ax.grid(False, axis="x")
    ax.set(xlabel=xlabel or "", ylabel=ylabel or axis_label(y, units))
    lines = [(str(group), looks[group], None, None) for group in groups] if by else []
    return Drawn(f"Bars of {ax.get_ylabel()}: " + "; ".join(words) + ".", _whiskers(low, high), lines)


@chart
def timeline(
    df: pd.DataFrame, x: str, y: str, by: str | None = None, *,
    title: str, name: str | None = None, ax: Axes | None = None, alt: str | None = None, note: str | None = None,
    xlabel: str | None = None, ylabel: str | None = None, units: Names | None = None, roles: Roles | str | None = None,
    logy: bool | None = None, steps: bool = False, xlim: Sequence[float] | None = None, ylim: Sequence[float] | None = None,
    shade: Mapping[str, Sequence[float]] | None = None,
) -> Drawn:  # fmt: skip
    """Draw what happened over time: a dot an event or, with ``steps``, a number that holds until the next row.

    xlim, ylim: (lowest, highest), the same for every variant of an experiment. shade: {what happened: (from, to)}, drawn in
    grey behind the data with its name on top.
    """
    groups = _groups(df, by)
    looks, lines, words = assign(groups, roles, SPARE[0]), [], []
    for event, (begin, end) in (shade or {}).items():
        ax.axvspan(begin, end, color=BLACK, alpha=0.09, linewidth=0, zorder=0)
        ax.annotate(event, ((begin + end) / 2, 1), (0, -4), xycoords=ax.get_xaxis_transform(), **_SHADED)
    for group, rows in groups.items():
        look, rows = looks[group], rows.sort_values(x, kind="stable")
        if steps:
            ax.plot(rows[x], rows[y], **look.stroke | ({} if by else {"linestyle": "-"}), drawstyle="steps-post")
            if by is None:
                ax.fill_between(rows[x], rows[y], step="post", color=look.color, alpha=0.25, linewidth=0)
        else:
            dots = {"color": look.color, "markersize": 6, "alpha": 0.5, "markeredgewidth": 0}
            ax.plot(rows[x], rows[y], look.marker or "o", rasterized=len(rows) > 2000, **dots)
        lines.append(
            (str(group), replace(look, marker="") if steps else look, rows[x][:0], rows[y][:0])
        )  # for a legend
        half = "" if steps else f"half at most {written(rows[y].median(), units[y])}, "
        ends = {"lowest": rows[y].argmin()} if units[y] == "%" else {}
        told = (
            f"{end} {written(rows[y].iloc[at], units[y])} at {written(rows[x].iloc[at], units[x])}"
            for end, at in (ends | {"highest": rows[y].argmax()}).items()
        )
        words.append(f"{_prefix(group, by)}{half}{', '.join(told)}")
    scale(ax, "x", df[x], units[x], False)
    logy = False if ylim and ylim[0] <= 0 else logy
    shown = pd.Series([*df[y], *ylim], name=y) if logy and ylim else df[y]  # the axis is as long as its limits say
    log = scale(ax, "y", shown, units[y], logy)
    ax.set(xlim=xlim, ylim=ylim, xlabel=axis_label(x, units) if xlabel is None else xlabel)
    ax.set_ylabel(ylabel or axis_label(y, units))
    about = f"{ax.get_ylabel().capitalize()}{log} over time: "
    return Drawn(about + "; ".join(words) + ".", "" if steps else _counted(groups), lines if by else [])


_WHISKER = {"fmt": "none", "ecolor": BLACK, "elinewidth": 2.2, "capsize": 6, "capthick": 2.2}
_BESIDE = {"va": "center", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.5}}
_MEDIAN = {"ha": "center", "va": "bottom", "fontweight": "bold"}
_SHADED = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 13, "gid": "event"}
_ON_TOP = {"ha": "center", "va": "bottom", "fontsize": 13, "gid": "value"}


def _checked(df: pd.DataFrame, columns: dict[str, str | None]) -> pd.DataFrame:
    """Return the frame with a named index as columns; raise ValueError unless it has rows and the columns asked for."""
    df = df.reset_index() if any(name is not None for name in df.index.names) else df
    for argument, column in columns.items():
        if column is not None and column not in df.columns:
            raise ValueError(
                f"{argument}={column!r} is no column of the frame: it has {', '.join(map(repr, df.columns))}"
            )
    if df.empty:
        raise ValueError("the frame has no rows: there is nothing to draw")
    return df


def _groups(df: pd.DataFrame, by: str | None) -> dict[object, pd.DataFrame]:
    """Return the rows of each value of ``by`` in order of appearance, or all rows under the name ""."""
    return {"": df} if by is None else dict(iter(df.groupby(by, sort=False)))


def _prefix(group: object, by: str | None) -> str:
    return f"{group}: " if by else ""


def _range(values: pd.Series, unit: str) -> str:
    return f"{written(values.min(), unit)} to {written(values.max(), unit)}"


def _counted(groups: Mapping[object, pd.DataFrame]) -> str:
    counts = {str(group): len(rows) for group, rows in groups.items()}
    if len(set(counts.values())) == 1:
        return f"n = {next(iter(counts.values())):,}" + (" each" if len(counts) > 1 else "")
    return "n = " + ", ".join(f"{n:,} {group}" for group, n in counts.items())


def _whiskers(low: str | None, high: str | None) -> str:
    return "whiskers: " + " to ".join(c.replace("_", " ") for c in (low, high) if c) if low or high else ""
