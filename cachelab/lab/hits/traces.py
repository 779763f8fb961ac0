"""Traces from files: who asked for what and, where the file says so, when, and how large it was."""

import keyword
import re
import sysconfig
import tokenize
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import TextIO

import numpy as np

from cachelab import _check
from cachelab.errors import CachelabError

COLUMNS = ("time", "key", "size")
# What columns are called in other people's traces: as a first line, these are no request.
HEADINGS = frozenset(
    "timestamp ts date datetime id ids url uri path object object_id obj_id item item_id key_id "
    "keys user_id page_id product_id request request_id query obj_size object_size value_size "
    "bytes time key size".split()
)
# Characters of a line that are read, and of a cell in quotes: no line of a trace is so long, and a
# file without line ends, or with a quote that never ends, ends early.
LONGEST = 2**18
# Folders of the standard library whose files are no part of it, or that some installations lack.
LEFT_OUT = frozenset("test tests idle_test lib2to3 site-packages dist-packages".split())

_QUOTED = re.compile(r'[ \t]*"(?:[^"]|"")*+"')


class TraceError(CachelabError, ValueError):
    """A file is no trace; the message names the file, the line and the rule."""


@dataclass(frozen=True)
class Trace:
    """A trace from a file.

    ids: whole numbers, one a request, in order of first appearance; names: the keys behind them.
    times: seconds, never falling; sizes: bytes, one a request; None where the file has no such
    column. Simulations count keys, as if all had one size; `replay.run` takes the sizes.
    """

    ids: np.ndarray
    names: list[str]
    times: np.ndarray | None = None
    sizes: np.ndarray | None = None

    @property
    def note(self) -> str:
        """What simulations leave out of this trace, in words; "" for nothing."""
        if self.sizes is None or self.sizes.min() == self.sizes.max():
            return ""
        span = f"from {self.sizes.min():,} to {self.sizes.max():,} bytes"
        return f"Sizes {span}: simulations count keys, as if all had one size; a replay takes them."


def from_csv(path: str | PathLike) -> Trace:
    """Read a trace: one key a line, or columns time, key, size.

    Commas, semicolons or tabs stand between columns. A first line may name the columns in any
    order; key is then the only one that must be there, and unknown ones are passed over. time:
    seconds, never falling. size: the value's bytes. A key that holds a comma, or blanks at its
    ends, stands in double quotes; other blanks around a cell do not count, nor do empty lines.
    Memory grows by the distinct keys and by some bytes a line.

    Raises:
        TraceError: Something else stands there; the message names the line.
    """
    path, requests, done = Path(path), _Requests(), 0  # done: the lines of whole rows
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            for row, lines in _rows(file):
                if row:
                    requests.add(row)
                done += lines
        except ValueError as error:
            raise TraceError(f"{path.name}, line {done + 1}: {error}") from None
    if not requests.ids:
        rule = f"a trace is one key a line, or columns {', '.join(COLUMNS)}"
        raise TraceError(f"{path.name} holds no request: {rule}")
    return requests.trace()


def python_names(requests: int, folder: str | PathLike | None = None) -> Trace:
    """Return the names in the source of Python's standard library, in the order of reading.

    A real trace that is on every machine: who reads a program needs to know what a name stands
    for, and needs it again a few lines later. Files come in the order of their paths, without
    tests; keywords are no names, nor is what stands in texts and comments.

    Args:
        requests: How many names at most.
        folder: Another folder of Python source.

    Raises:
        TraceError: The folder holds no source, as where the library is packed into one file.
    """
    requests = _check.whole("requests", requests, least=1)
    root = Path(sysconfig.get_path("stdlib") if folder is None else folder)
    numbers: dict[str, int] = {}  # of each name, in order of first appearance
    read = [numbers.setdefault(name, len(numbers)) for name in islice(_names(root), requests)]
    if not read:
        raise TraceError(f"{root.name} holds no Python source: name another folder")
    return Trace(np.array(read), list(numbers))


class _Requests:
    """Requests as they are read; the first row says, or shows, which columns there are."""

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.numbers: dict[str, int] = {}  # of each key, in order of first appearance
        self.ids = array("q")
        self.times = array("d")
        self.sizes = array("q")

    def add(self, row: list[str]) -> None:
        """Take a row; ValueError where it is no request."""
        if not self.columns:
            self.columns, names_them = _columns(row)
            if names_them:
                return
        if len(row) != len(self.columns):
            wanted = f"wants {', '.join(self.columns)}, and holds {_shown(row)}"
            raise ValueError(f"{wanted}: a key with a comma is quoted")
        cells = dict(zip(self.columns, row, strict=True))
        key = _check.identity("key", cells["key"])
        time = _time(cells["time"], self.times) if "time" in cells else None
        size = _size(cells["size"]) if "size" in cells else None
        self.ids.append(self.numbers.setdefault(key, len(self.numbers)))
        if time is not None:
            self.times.append(time)
        if size is not None:
            self.sizes.append(size)

    def trace(self) -> Trace:
        """Return all that was read."""
        times = np.array(self.times) if self.times else None
        sizes = np.array(self.sizes) if self.sizes else None
        return Trace(np.array(self.ids), list(self.numbers), times, sizes)


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in LEFT_OUT:
            yield from _sources(path)
        elif path.suffix == ".py" and path.is_file():
            yield path


def _names(root: Path) -> Iterator[str]:
    for path in _sources(root):
        with path.open("rb") as file:
            try:
                for token in tokenize.tokenize(file.readline):
                    if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                        yield token.string
            except (SyntaxError, tokenize.TokenError):
                continue  # source that is broken on purpose


def _rows(file: TextIO) -> Iterator[tuple[list[str], int]]:
    """Yield the cells of each row, none for an empty line, and how many lines the row takes.

    That is one, unless a cell in quotes holds line ends.
    """
    mark, text, lines = "", "", 0
    for line in _lines(file):
        text, lines = text + line, lines + 1
        if not text.strip():
            yield [], lines
            text, lines = "", 0
            continue
        mark = mark or _delimiter(text)
        goes_on = lines > 1 and line.count('"') % 2 == 0
        row = None if goes_on else _cells(text, mark)
        if row is not None:
            yield row, lines
            text, lines = "", 0
        elif len(text) > LONGEST:
            break
    if text:
        raise ValueError("a cell in quotes never ends: is a double quote missing?")


def _lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a text, before quotes and columns are found in what is none.

    A line of more than LONGEST characters comes in parts.
    """
    for line in iter(partial(file.readline, LONGEST), ""):
        try:
            if "\0" in line or not (line.isascii() or line.encode()):
                raise ValueError
        except ValueError:
            held = f"wants text in UTF-8, and holds {_shown(line)}"
            raise ValueError(f"{held}: unpack the file, or save it as UTF-8") from None
        yield line


def _cells(text: str, mark: str) -> list[str] | None:
    """Return the cells of a row, or None while one in quotes has not ended."""
    text = text.rstrip("\r\n")
    if '"' not in text:
        return [cell.strip(_blanks(mark)) for cell in text.split(mark)]
    cells, at, pattern = [], 0, _cell(mark)
    while found := pattern.match(text, at):
        quoted, bare, at = found["quoted"], found["bare"], found.end()
        if quoted is None:
            cells.append((bare or "").rstrip(_blanks(mark)))
        else:
            cells.append(quoted.replace('""', '"'))
        if not found["mark"]:
            return cells
    if _QUOTED.match(text, at):
        raise ValueError(f"wants nothing behind a cell in quotes, and holds {_shown(text[at:])}")
    return None


@cache
def _cell(mark: str) -> re.Pattern[str]:
    """Return the pattern of one cell and what ends it; quotes in the middle are characters."""
    blanks = f"[{_blanks(mark)}]*+"
    quoted = rf'"(?P<quoted>(?:[^"]|"")*+)"{blanks}'
    bare = rf'(?P<bare>[^"{mark}][^{mark}]*+)?'
    return re.compile(rf"{blanks}(?:{quoted}|{bare})(?P<mark>{mark}|\Z)")


def _blanks(mark: str) -> str:
    return " " if mark == "\t" else " \t"


def _delimiter(line: str) -> str:
    """Return what stands between a file's columns, by its first line.

    A comma, unless another mark makes columns of a trace of the line.
    """
    for mark in ";\t":
        try:
            cells = _cells(line, mark) or []
        except ValueError:
            continue
        numbers = len(cells) == 3 and None not in (_float(cells[0]), _int(cells[2]))
        if len(cells) > 1 and (numbers or _is_heading(cells)):
            return mark
    return ","


def _columns(first: list[str]) -> tuple[list[str], bool]:
    """Return the columns' names, and whether the first row is these."""
    names = [cell.lower() for cell in first]
    if "key" in names:
        for name in COLUMNS:
            if names.count(name) > 1:
                raise ValueError(f"names the column {name} {names.count(name)} times: leave one")
        return names, True
    if _is_heading(first):
        if len(first) == 1:
            way_out = "call it key or, if it is a request, put a line `key` above"
            raise ValueError(f"{_shown(first[0])} looks like the name of a column: {way_out}")
        held = f"names columns, and none of {_shown(first)} is key"
        raise ValueError(f"{held}: call the one with the keys key")
    if len(first) not in (1, 3):
        wanted = f"wants one key, the columns {', '.join(COLUMNS)}, or a line that names them"
        raise ValueError(f"{wanted}, and holds {_shown(first)}")
    return (["key"] if len(first) == 1 else [*COLUMNS]), False


def _is_heading(first: list[str]) -> bool:
    """Return whether a file's first row names columns and holds no request."""
    if any(_float(cell) is not None for cell in first):
        return False
    named = any(cell.lower() in HEADINGS for cell in first)
    return named or (len(first) == 3 and all(cell.isidentifier() for cell in first))


def _time(text: str, before: array) -> float:
    time = _float(text)
    if time is None or not isfinite(time):
        rule = "time must be seconds, a number"
        raise ValueError(f"{rule}, not {_shown(text)}: turn dates into seconds")
    if before and time < before[-1]:
        rule = f"time must never fall, not {_shown(text)} after {before[-1]:.15g}"
        raise ValueError(f"{rule}: sort the lines by time")
    return time


def _size(text: str) -> int:
    size = _int(text)
    if size is None or not 0 <= size < 2**63:
        raise ValueError(f"size must be a whole number of bytes, at least 0, not {_shown(text)}")
    return size


def _float(text: str) -> float | None:
    try:
        # Python takes 1_000 for a number; nobody else does.
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _int(text: str) -> int | None:
    try:
        return None if "_" in text else int(text)
    except ValueError:
        return None


def _shown(value: object) -> str:
    return text if len(text := repr(value)) <= 60 else f"{text[:60]}..."
