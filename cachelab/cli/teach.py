"""python -m cachelab teach: what a teacher asks and says at each prediction, and when."""

import argparse
import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cachelab import _check
from cachelab._extras import need
from cachelab.errors import CachelabError

if TYPE_CHECKING:
    from nbformat import NotebookNode

HELP = """
Print a sheet for the teacher: a row for each prediction of a notebook.

A row has the minute, the question, the usual wrong answer, the line to say
after the run, and what the class waits for. Minutes are counted from the
words, the code, the waits and the exercises that stand above. Each notebook
named has a sheet, all of them when none is named; a path through the series
has one sheet, whose clock runs on. Sheets are Markdown.

examples:
  python -m cachelab teach 01
  python -m cachelab teach --path class
  python -m cachelab teach --path half-day --output half-day.md
"""
ENVIRONMENT = ()


class Way(NamedTuple):
    """A way through the series: the notebooks in order, each up to a figure ("": all of it)."""

    title: str
    advice: str
    upto: Mapping[str, str]  # empty: every notebook, all of it


PATHS = {
    "class": Way(
        "One hour with a class",
        "A show of hands before each run. No exercises: set one as homework. "
        "What is left of the hour is for the guesses and for questions.",
        {"00": "00_pings", "01": "01_hit_rate", "03": "03_latency"},
    ),
    "half-day": Way(
        "Half a day with a class",
        "A show of hands before each run, exercises in pairs. "
        "Leave the widgets for questions. Breaks come on top.",
        dict.fromkeys(("00", "01", "02", "03", "05"), ""),
    ),
    "self-study": Way(
        "By yourself",
        "One notebook a sitting, guesses written down. Nothing is left out.",
        {},
    ),
}

FIELDS = ("question", "usual", "say", "wait")
_HEAD = "| minute | question | usual wrong answer | say | wait |\n|---:|---|---|---|---|"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    option = parser.add_argument
    option("numbers", nargs="*", metavar="NUMBER", help="notebooks, such as 02b (default: all)")
    option("--path", metavar="PATH", help="one sheet for class, half-day or self-study")
    option("--output", type=Path, metavar="FILE", help="where the sheets go (default: print)")


def run(args: argparse.Namespace) -> int:
    """Print the sheets, or write them into a file."""
    if args.path and args.numbers:
        named = " ".join(args.numbers)
        raise ValueError(f"--path {args.path} names its notebooks itself: leave out {named}")
    need("teach", "lab")
    from cachelab.lab import notebooks

    found = notebooks.numbered()
    if args.path:
        way = PATHS[_check.choice("path", args.path, tuple(PATHS))]
        text = path_sheet(way, found)
    else:
        chosen = [_check.choice("number", one, tuple(found)) for one in args.numbers or found]
        text = "\n".join(sheet(found[number]) for number in dict.fromkeys(chosen))
    if args.output:
        args.output.write_text(text, encoding="utf-8")
        print(f"Sheets written to {args.output}")
    else:
        print(text, end="")
    return 0


def sheet(path: Path) -> str:
    """Return the sheet of one notebook, as Markdown."""
    from cachelab.lab import notebooks

    about = notebooks.card(path)
    head = f"# {about['label']}: for the teacher\n\n{about['question']} {about['minutes']} minutes."
    return f"{head}\n\n{_table(predictions(path))}\n"


def path_sheet(way: Way, found: Mapping[str, Path]) -> str:
    """Return the sheet of a way through the series, whose minutes run on, as Markdown.

    Args:
        way: One of ``PATHS``.
        found: Each notebook's file by its number.

    Raises:
        CachelabError: A notebook or a figure of the way does not exist.
    """
    from cachelab.lab import notebooks

    minute, overview, tables = 0, [], []
    for number, figure in (way.upto or dict.fromkeys(found, "")).items():
        path = found[_check.choice("notebook", number, tuple(found))]
        about, rows = notebooks.card(path), predictions(path, figure, minute)
        upto = f"the figure {figure}" if figure else "its end"
        overview.append(f"| {minute} | {about['label']} | {upto} | {len(rows)} |")
        tables.append(f"## {about['label']}\n\n{about['question']}\n\n{_table(rows)}\n")
        minute += round(_minutes_to(path, figure)) if figure else about["minutes"]
    overview.append(f"| {minute} | end | | |")
    head = "| from minute | notebook | up to | predictions |\n|---:|---|---|---:|"
    lines = "\n".join(overview)
    return f"# {way.title}\n\n{way.advice}\n\n{head}\n{lines}\n\n" + "\n".join(tables)


def predictions(path: Path, figure: str = "", start: int = 0) -> list[tuple[str, ...]]:
    """Return the minute, the question and the rest of each prediction of a notebook.

    Args:
        path: The notebook.
        figure: The name of the figure at which to stop; "": go to the end.
        start: The minute at which the notebook is begun.

    Raises:
        CachelabError: There is no such figure, or a prediction lacks a field.
    """
    nb = _read(path)
    rows = []
    for at in range(_end(nb, path, figure)):
        told = nb.cells[at].metadata.get("teacher")
        if told is None:
            continue
        lacking = [field for field in FIELDS if not told.get(field)]
        if lacking:
            raise CachelabError(
                f"{path.name}, cell {at + 1}: its metadata `teacher` lacks {', '.join(lacking)}; "
                f"a prediction has {', '.join(FIELDS)}: fill them in"
            )
        rows.append((str(int(start + _minutes_above(nb, at))), *(told[field] for field in FIELDS)))
    return rows


def _read(path: Path) -> "NotebookNode":
    import nbformat

    nb: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return nb


def _end(nb: "NotebookNode", path: Path, figure: str) -> int:
    """Return how many cells there are up to the one that draws the figure, this one included."""
    if not figure:
        return len(nb.cells)
    for at, cell in enumerate(nb.cells, 1):
        if cell.cell_type == "code" and f'name="{figure}"' in cell.source:
            return at
    raise CachelabError(
        f"{path.name} draws no figure {figure!r}, up to which a path takes it: "
        "name one that it draws in PATHS of cachelab/cli/teach.py"
    )


def _minutes_above(nb: "NotebookNode", cells: int) -> float:
    from cachelab.lab import notebooks

    above = copy.copy(nb)
    above.cells = nb.cells[:cells]
    return notebooks.minutes(above)


def _minutes_to(path: Path, figure: str) -> float:
    nb = _read(path)
    return _minutes_above(nb, _end(nb, path, figure))


def _table(rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "No predictions."
    return "\n".join([_HEAD, *_written(rows)])


def _written(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield each row as a line of a Markdown table, whatever its texts hold."""
    for row in rows:
        cells = (re.sub(r"\s+", " ", text).strip().replace("|", r"\|") for text in row)
        yield f"| {' | '.join(cells)} |"
