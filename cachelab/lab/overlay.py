"""Overlays: the figures of two machines as one.

The first machine is filled and thick, the second hollow and thin.
"""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cachelab.lab import findings
from cachelab.lab.draw import charts
from cachelab.lab.draw.canvas import save, subplots
from cachelab.lab.draw.figures import FigureError, kept_in, read
from cachelab.lab.draw.layout import is_log
from cachelab.lab.draw.roles import PLAIN, SPARE, assign

# What tells two machines apart.
MACHINE = ("cpu", "cores", "server", "python", "redis-py", "hiredis", "system", "scale", "date")

ROWS = ("strip", "ranking")  # kinds of chart that give each category a row
SERIES = "series and machine"  # a column

Drawing = tuple[str, pd.DataFrame, dict]  # kind of chart, data, arguments


def overlay(first: str | Path, second: str | Path, into: str | Path) -> dict[str, Path | None]:
    """Draw each figure that two folders have with the data of both, as SVG and PNG in a third.

    Returns:
        {name: SVG}; None stands for a figure that is not the same chart in both, as another
        version of its notebook may draw it.

    Raises:
        FigureError: The folders are one, have no figure in common, or one is malformed.
    """
    first, second, into = Path(first), Path(second), Path(into)
    if first.resolve() == second.resolve():
        raise FigureError(
            f"{second} is the folder of both machines: name the figures of another one"
        )
    files = {file.name: file for file in kept_in(first)}
    both = [(files[file.name], file) for file in kept_in(second) if file.name in files]
    if not both:
        found = f"{first} and {second} have no figure in common"
        raise FigureError(f"{found}: nothing can be laid over anything")
    into.mkdir(parents=True, exist_ok=True)
    return {mine.stem: _draw(mine.stem, (read(mine), read(theirs)), into) for mine, theirs in both}


def machines(first: dict, second: dict) -> tuple[str, str]:
    """Return short names of two environments: the first thing in which they differ, in words.

    >>> machines({"cpu": "AMD EPYC 7763 64-Core Processor"}, {"cpu": "Apple M3", "cores": 8})
    ('AMD EPYC 7763', 'Apple M3')
    >>> machines({"cpu": "AMD EPYC", "python": "3.11.7"}, {"cpu": "AMD EPYC", "python": "3.12.1"})
    ('Python 3.11.7', 'Python 3.12.1')
    """
    for part in MACHINE:
        if part in first and part in second and first[part] != second[part]:
            return _words(part, first[part]), _words(part, second[part])
    return "first run", "second run"


def _words(part: str, value: object) -> str:
    if part == "cpu":
        marks = r"\s*(\((R|TM|r|tm)\)|\bCPU\b|@.*|(\d+-Core )?Processor)"
        return re.sub(marks, "", str(value)).strip()
    if part in ("server", "system", "date"):
        return str(value)
    patterns = {"cores": "{} cores", "python": "Python {}", "scale": "{} scale"}
    return patterns.get(part, f"{part} {{}}").format(value)


def _notes(environments: tuple[dict, dict], names: tuple[str, str], is_overlaid: bool) -> list[str]:
    """Return the small print: how each machine is drawn, in what they differ, what is alike."""
    first, second = environments
    known = [part for part in MACHINE if part in first and part in second]
    unlike = [part for part in known if first[part] != second[part]]
    cues = ("filled and thick: ", "hollow and thin: ") if is_overlaid else ("", "")
    notes = [
        cue + (", ".join(_words(part, one[part]) for part in unlike) or name)
        for cue, one, name in zip(cues, environments, names, strict=True)
    ]
    alike = ", ".join(_words(part, first[part]) for part in known if part not in unlike)
    return notes + ([f"both: {alike}"] if alike else [])


def _draw(name: str, figures: tuple[dict, dict], into: Path) -> Path | None:
    first, second = figures
    pairs = list(zip(first["charts"], second["charts"], strict=False))
    kinds = [[chart["kind"] for chart in figure["charts"]] for figure in figures]
    if kinds[0] != kinds[1]:
        return None
    environments, layout = (first["environment"], second["environment"]), first["layout"]
    names = machines(*environments)
    drawings = [drawing for pair in pairs for drawing in _drawings(pair, names)]
    axes = subplots(len(drawings), sharex=layout["sharex"], sharey=layout["sharey"])
    # Twice as many names, and more small print.
    axes[0].figure.set_size_inches(11, sum(_height(*drawing) for drawing in drawings))
    agree = pd.concat(findings.between(*pair)["agrees"] for pair in pairs)
    notes = _notes(environments, names, len(drawings) < 2 * len(pairs))
    notes.append(f"{agree.sum()} of {len(agree)} findings agree")
    for ax, (kind, df, given) in zip(axes, drawings, strict=True):
        note = "; ".join(filter(None, [given.get("note"), *notes]))
        charts.KINDS[kind](df, ax=ax, **given | {"note": note})
    return save(axes[0].figure, into / f"{name}.svg", f"{name}: {names[0]} and {names[1]}")


def _height(kind: str, df: pd.DataFrame, given: dict) -> float:
    return max(6.5, 2.3 + 0.5 * len(given.get("roles", ())) * (kind in ROWS))


def _drawings(pair: tuple[dict, dict], names: tuple[str, str]) -> list[Drawing]:
    """Return what to draw for a chart of two machines: one chart, or two where dots would hide."""
    kind, given = pair[0]["kind"], pair[0]["arguments"]
    titles = [
        f"{name}: {chart['arguments']['title'].rstrip('.')}"
        for name, chart in zip(names, pair, strict=True)
    ]
    if kind == "timeline" and not given.get("steps"):
        ends = _limits(pair)
        return [
            (kind, one["df"], one["arguments"] | ends | {"title": title})
            for one, title in zip(pair, titles, strict=True)
        ]
    frames, rows = [chart["df"] for chart in pair], kind in ROWS
    by = given["y"] if rows else given.get("by")
    if kind == "ranking" and given.get("sort", True):
        frames = [df.sort_values(given["x"], kind="stable") for df in frames]
    if by is None:
        frames, by = [df.assign(**{SERIES: ""}) for df in frames], SERIES
    series = list(dict.fromkeys(pd.concat(frames)[by]))
    other = PLAIN if rows or kind == "bars" else SPARE[0]
    looks = assign(series, given.get("roles"), other, repeat=rows)
    labels = {(one, name): f"{one}, {name}".removeprefix(", ") for one in series for name in names}
    pieces = [  # of each series the first machine's before the second's
        df[df[by] == one].assign(**{SERIES: label})
        for (one, name), label in labels.items()
        for df in [frames[names.index(name)]]
    ]
    same = pair[0]["arguments"]["title"] == pair[1]["arguments"]["title"]
    more: dict[str, object] = {
        "title": f"{names[0]} and {titles[1]}" if same else ". ".join(titles),
        "roles": {
            label: replace(looks[one], hollow=name == names[1])
            for (one, name), label in labels.items()
        },
        "y" if rows else "by": SERIES,
    }
    if kind == "ranking":
        more["sort"] = False
    return [(kind, pd.concat(pieces, ignore_index=True), given | more)]


def _limits(pair: tuple[dict, dict]) -> dict[str, object]:
    """Return limits and scale that hold the dots of both charts."""
    given = pair[0]["arguments"]
    x, y = (pd.concat(chart["df"][given[axis]] for chart in pair) for axis in "xy")
    log = is_log(y, given.get("logy"))
    top = (y.min() / 1.5, y.max() * 1.5) if log else (min(0, y.min()), 1.05 * y.max())
    own = {"xlim": (min(0, x.min()), x.max()), "ylim": top}
    return {"logy": log} | {end: given.get(end) or limits for end, limits in own.items()}
