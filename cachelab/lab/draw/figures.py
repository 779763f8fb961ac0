"""Figures: a folder of them, each kept with its data and what made it, and drawn again from that.

A figure NAME is NAME.json (environment, layout, and of each chart its kind, arguments and alt),
NAME.csv with the data (NAME-1.csv, NAME-2.csv for several charts), NAME.svg and NAME.png.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from pandas.api.types import is_string_dtype

from cachelab.clients import answered
from cachelab.errors import CachelabError
from cachelab.lab import scale
from cachelab.lab.draw.canvas import ChartAxes, Kept, save, subplots

Kinds = Mapping[str, Callable[..., Axes]]  # {kind of chart: its function}


class FigureError(CachelabError):
    """A kept figure is missing or cannot be read; the message names the file and the way out."""


def keep(ax: Axes, name: str | None, chart: dict, kinds: Kinds) -> None:
    """Write a named and finished figure into the folder that CACHELAB_CHARTS names, if it does.

    SVG and PNG are drawn from the files just written, so that drawing them again later gives the
    same bytes.

    Args:
        ax: Where the chart is drawn; the figure is finished when all its axes are.
        name: The figure's name, if the figure has none yet.
        chart: Its kind, data, arguments and alt.
        kinds: The functions that draw the charts of the figure.
    """
    figure, folder = ax.figure, os.environ.get("CACHELAB_CHARTS")
    kept = figure.kept if isinstance(ax, ChartAxes) else Kept(None, {"n": 1}, {})
    kept.name = name or kept.name
    kept.charts[figure.axes.index(ax)] = chart
    if len(kept.charts) < kept.layout["n"]:
        return
    record = {"environment": environment(), "layout": kept.layout}
    answered.turn()
    if not folder or not kept.name:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = Path(folder, f"{kept.name}.json")
    charts = [kept.charts[place] for place in sorted(kept.charts)]
    numbers = [""] if kept.layout["n"] == 1 else [f"-{i}" for i in range(1, len(charts) + 1)]
    record["charts"] = [
        _write(one, file.with_name(f"{kept.name}{number}.csv"))
        for one, number in zip(charts, numbers, strict=True)
    ]
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _draw(file, read(file), kinds)


def redraw(folder: str | Path, kinds: Kinds) -> list[Path]:
    """Draw every kept figure of a folder again, running nothing else; return the SVG files written.

    All are read before the first is drawn, so that nothing has changed when one cannot be.

    Raises:
        FigureError: A file is missing or malformed.
    """
    files = kept_in(folder)
    for file in files:
        read(file)
    # Read anew: meanwhile a notebook may have written it.
    return [_draw(file, read(file), kinds) for file in files]


def kept_in(folder: str | Path) -> list[Path]:
    """Return the JSON files of the figures that a folder keeps, in order.

    Raises:
        FigureError: It keeps none, or one by halves.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.json"))
    for picture in sorted(folder.glob("*.svg")):
        if (file := picture.with_suffix(".json")) not in files:
            raise FigureError(f"{file} is missing: {_way_out(file)}")
    if not files:
        what = "holds no figures" if folder.is_dir() else "is no folder"
        way_out = "name one that `python -m cachelab charts` has drawn, such as charts/"
        raise FigureError(f"{folder} {what}: {way_out}")
    return files


def read(file: Path) -> dict:
    """Return what is kept of a figure, each chart with its frame as ``df``.

    Raises:
        FigureError: A part is missing or malformed; the message names it.
    """
    part = file
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        figure = {key: record[key] for key in ("environment", "layout", "charts")}
        for chart in figure["charts"]:
            data, dtypes, rows = (chart[key] for key in ("data", "dtypes", "rows"))
            part = file.with_name(data)
            df = pd.read_csv(part, dtype=dtypes, keep_default_na=False, na_values=[""])
            _same("columns", list(df.columns), list(dtypes))
            _same("rows", len(df), rows)
            chart["df"] = df
            part = file
        return figure
    except FileNotFoundError:
        raise FigureError(f"{part} is missing: {_way_out(part)}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FigureError(f"{part} is malformed ({_briefly(error)}): {_way_out(part)}") from None


def environment() -> dict[str, object]:
    """Return what a measurement depends on: server, packages, processor, system, day and scale.

    No names, no paths. The server is the one that clients of `connect` and `connect_async` were
    last answered by: in this cell, or in the last one in which any was; in a script, since the
    figure before. Several are named side by side; one that was asked by RESP2, or by no such
    client, is not named.
    """
    servers = ", ".join(answered.names())
    return ({"server": servers} if servers else {}) | {
        "python": platform.python_version(),
        "redis-py": version("redis"),
        "hiredis": version("hiredis"),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "system": _system(),
        "date": datetime.now(UTC).date().isoformat(),
        "scale": scale(),
    }


def _write(chart: dict, file: Path) -> dict:
    """Write a chart's data; return what the record says of the chart."""
    df = chart["data"]
    df.to_csv(file, index=False, lineterminator="\n")
    dtypes = {
        column: "str" if is_string_dtype(dtype) else str(dtype)
        for column, dtype in df.dtypes.items()
    }
    return chart | {"data": file.name, "rows": len(df), "dtypes": dtypes}


def _same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise ValueError(f"{what} {found} instead of {wanted}")


def _draw(file: Path, figure: dict, kinds: Kinds) -> Path:
    """Draw one kept figure into its SVG and PNG."""
    try:
        axes = subplots(**figure["layout"])
        for ax, chart in zip(axes, figure["charts"], strict=True):
            kinds[chart["kind"]](chart["df"], ax=ax, alt=chart["alt"], **chart["arguments"])
        title = " / ".join(chart["arguments"]["title"] for chart in figure["charts"])
    except (ValueError, LookupError, TypeError) as error:
        raise FigureError(f"{file} is malformed ({_briefly(error)}): {_way_out(file)}") from error
    return save(axes[0].figure, file.with_suffix(".svg"), title)


def _way_out(file: Path) -> str:
    number = file.name.partition("_")[0]
    only = f" --only {number}" if number[:2].isdigit() else ""
    return f"restore it (git restore {file}) or measure it again (python -m cachelab charts{only})"


def _briefly(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())


def _system() -> str:
    """Return the system as people name it; a kernel's release can carry names of its machine."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        is_mac = platform.system() == "Darwin"
        return f"macOS {platform.mac_ver()[0]}" if is_mac else platform.system()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
