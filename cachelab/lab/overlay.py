"""Overlays: the figures of two machines as one, the first machine filled and thick, the second hollow and thin."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cachelab.lab import charts, findings
from cachelab.lab.figures import FigureError, kept_in, panels, read, save
from cachelab.lab.layout import is_log
from cachelab.lab.looks import PLAIN, SPARE, assign

MACHINE = ("cpu", "cores", "server", "python", "redis-py", "hiredis", "system", "scale", "date")  # what tells two apart

ROWS = ("strip", "ranking")  # kinds of chart that give each category a row


def overlay(first: str | Path, second: str | Path, into: str | Path) -> dict[str, Path | None]:
    """Draw each figure that two folders have with the data of both, as SVG and PNG in a third; return {name: SVG}.

    None stands for a figure that is not the same chart in both, as another version of its notebook may draw it. Raises
    FigureError if the folders are one, have no figure in common, or hold one that is malformed.
    """
    first, second, into = Path(first), Path(second), Path(into)
    if first.resolve() == second.resolve():
        raise FigureError(f"{second} is the folder of both machines: name the figures of another one")
    files = {file.name: file for file in kept_in(first)}
    both = [(files[file.name], file) for file in kept_in(second) if file.name in files]
    if not both:
        raise FigureError(f"{first} and {second} have no figure in common: nothing can be laid over anything")
    into.mkdir(parents=True, exist_ok=True)
    return {mine.stem: _draw(mine.stem, (read(mine), read(theirs)), into) for mine, theirs in both}


def machines(first: dict, second: dict) -> tuple[str, str]:
    """Return short names of two environments: the first thing in which they differ, in words.

    >>> machines({"cpu": "AMD EPYC 7763 64-Core Processor", "cores": 2}, {"cpu": "Apple M3", "cores": 8})
    ('AMD EPYC 7763', 'Apple M3')
    >>> machines({"cpu": "AMD EPYC", "python": "3.11.7"}, {"cpu": "AMD EPYC", "python": "3.12.1"})
    ('Python 3.11.7', 'Python 3.12.1')
    """
    for part in MACHINE:
        if first.get(part) != second.get(part) and part in first and part in second:
            return tuple(_words(part, told[part]) for told in (first, second))
    return "first run", "second run"


def _words(part: str, value: object) -> str:
    if part == "cpu":
        return re.sub(r"\s*(\((R|TM|r|tm)\)|\bCPU\b|@.*|(\d+-Core )?Processor)", "", str(value)).strip()
    patterns = {"cores": "{} cores", "python": "Python {}", "scale": "{} scale"}
    return patterns.get(part, "{}" if part in ("server", "system", "date") else f"{part} {{}}").format(value)


def _notes(told: tuple[dict, dict], names: tuple[str, str], overlaid: bool) -> list[str]:
    """Return what the small print says of two machines: how each is drawn and all in which they differ, then what is alike."""
    known = [part for part in MACHINE if part in told[0] and part in told[1]]
    unlike = [part for part in known if told[0][part] != told[1][part]]
    cues = ("filled and thick: ", "hollow and thin: ") if overlaid else ("", "")
    each = [
        cue + (", ".join(_words(part, one[part]) for part in unlike) or name)
        for cue, one, name in zip(cues, told, names, strict=True)
    ]
    alike = ", ".join(_words(part, told[0][part]) for part in known if part not in unlike)
    return each + ([f"both: {alike}"] if alike else [])


def _draw(name: str, figures: tuple[dict, dict], into: Path) -> Path | None:
    pairs = list(zip(*(figure["charts"] for figure in figures), strict=False))
    if len({len(figure["charts"]) for figure in figures}) > 1 or any(a["kind"] != b["kind"] for a, b in pairs):
        return None
    told, layout = tuple(figure["environment"] for figure in figures), figures[0]["layout"]
    names, agree = machines(*told), pd.concat(findings.between(*pair)["agrees"] for pair in pairs)
    drawings = [drawing for pair in pairs for drawing in _drawings(pair, names)]
    axes = panels(len(drawings), sharex=layout["sharex"], sharey=layout["sharey"])
    tall = (max(6.5, 2.3 + 0.5 * len(given.get("roles", ())) * (kind in ROWS)) for kind, _, given in drawings)
    axes[0].figure.set_size_inches(11, sum(tall))  # twice as many names, and more small print
    notes = [*_notes(told, names, len(drawings) < 2 * len(pairs)), f"{agree.sum()} of {len(agree)} findings agree"]
    for ax, (kind, df, given) in zip(axes, drawings, strict=True):
        charts.KINDS[kind](df, ax=ax, **given | {"note": "; ".join(filter(None, [given.get("note"), *notes]))})
    return save(axes[0].figure, into / f"{name}.svg", f"{name}: {names[0]} and {names[1]}")


def _drawings(pair: tuple[dict, dict], names: tuple[str, str]) -> list[tuple[str, pd.DataFrame, dict]]:
    """Return what to draw for one chart of two machines: one chart of both, or two where dots would hide one another."""
    kind, given = pair[0]["kind"], pair[0]["arguments"]
    titles = [f"{name}: {chart['arguments']['title'].rstrip('.')}" for name, chart in zip(names, pair, strict=True)]
    if kind == "timeline" and not given.get("steps"):
        ends = _limits(pair)
        return [
            (kind, one["df"], one["arguments"] | ends | {"title": title})
            for one, title in zip(pair, titles, strict=True)
        ]
    frames, rows, column = [chart["df"] for chart in pair], kind in ROWS, "series and machine"
    by = given["y"] if rows else given.get("by")
    if kind == "ranking" and given.get("sort", True):
        frames = [df.sort_values(given["x"], kind="stable") for df in frames]
    if by is None:
        frames, by = [df.assign(**{column: ""}) for df in frames], column
    series = list(dict.fromkeys(pd.concat(frames)[by]))
    looks = assign(series, given.get("roles"), PLAIN if rows or kind == "bars" else SPARE[0], repeat=rows)
    labels = {(one, name): f"{one}, {name}".removeprefix(", ") for one in series for name in names}
    pieces = [  # of each series the first machine's before the second's
        df[df[by] == one].assign(**{column: label})
        for (one, name), label in labels.items()
        for df in [frames[names.index(name)]]
    ]
    same = pair[0]["arguments"]["title"] == pair[1]["arguments"]["title"]
    more = {
        "title": f"{names[0]} and {titles[1]}" if same else ". ".join(titles),
        "roles": {labels[one, name]: replace(looks[one], hollow=name == names[1]) for one, name in labels},
        "y" if rows else "by": column,
    }
    return [(kind, pd.concat(pieces, ignore_index=True), given | more | ({"sort": False} if kind == "ranking" else {}))]


def _limits(pair: tuple[dict, dict]) -> dict[str, object]:
    """Return limits and scale that hold the dots of both charts."""
    given = pair[0]["arguments"]
    x, y = (pd.concat(chart["df"][given[axis]] for chart in pair) for axis in "xy")
    log = is_log(y, given.get("logy"))
    top = (y.min() / 1.5, y.max() * 1.5) if log else (min(0, y.min()), 1.05 * y.max())
    own = {"xlim": (min(0, x.min()), x.max()), "ylim": top}
    return {"logy": log} | {end: given.get(end) or limits for end, limits in own.items()}
