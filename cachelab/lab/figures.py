"""Figures: the canvas that charts draw on, how a notebook shows it, and how it is kept and drawn again from its data."""

import base64
import io
import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import matplotlib.style
import pandas as pd
import redis
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pandas.api.types import is_string_dtype

import cachelab.client
from cachelab.errors import CachelabError
from cachelab.lab import scale

STYLE = Path(__file__).with_name("house.mplstyle")
SCREEN_DPI = 90  # CSS pixels an inch in a notebook; the PNG holds twice as many


class FigureError(CachelabError):
    """A kept figure is missing or cannot be read; the message names the file and the way out."""


class ChartAxes(Axes):
    """Axes that a notebook shows as its whole figure, once, with alternative text.

    The figure is unknown to pyplot: nothing is open to be closed, and the inline backend does not show it a second time.
    """

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        alt = alt_text(self.figure)
        width, height = (round(inches * SCREEN_DPI) for inches in self.figure.get_size_inches())
        with house_style():
            self.figure.savefig(png := io.BytesIO(), format="png")
        data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": alt}
        return data, {"image/png": {"alt": alt, "width": width, "height": height}}


def house_style():
    """Return the context in which charts are drawn and written: matplotlib's defaults and the house style, nothing else."""
    return matplotlib.style.context(STYLE, after_reset=True)


@dataclass
class Kept:
    """What a figure is to be kept as: its name, the arguments of ``panels`` that made it, its charts in order of panels."""

    name: str | None
    layout: dict[str, int | bool]
    charts: dict[int, dict]


def panels(
    n: int = 2, name: str | None = None, across: bool = False, sharex: bool = False, sharey: bool = False
) -> list[ChartAxes]:
    """Return ``n`` empty axes of one figure, stacked (or side by side), each to be handed to a chart as ``ax=``.

    With a name, the figure is kept as one when its last panel has been drawn.
    """
    rows, columns, size = (1, n, (5.2 * n, 5)) if across else (n, 1, (9, 4.2 * n))
    with house_style():
        figure = Figure(figsize=size if n > 1 else None)
        FigureCanvasAgg(figure)
        axes = figure.subplots(
            rows, columns, sharex=sharex, sharey=sharey, squeeze=False, subplot_kw={"axes_class": ChartAxes}
        )
    figure.kept = Kept(name, {"n": n, "across": across, "sharex": sharex, "sharey": sharey}, {})
    return list(axes.flat)


def alt_text(figure: Figure) -> str:
    """Return the alternative texts of a figure's charts as one."""
    return " ".join(ax.alt for ax in figure.axes if getattr(ax, "alt", ""))


def keep(ax: Axes, name: str | None, chart: dict) -> None:
    """Write a named and finished figure into the folder that CACHELAB_CHARTS names, if it names one.

    chart: kind, data, arguments and alt. NAME.svg and NAME.png are drawn from the NAME.csv and NAME.json just written, so
    that drawing them again later gives the same bytes. The panels of a figure have their data in NAME-1.csv, NAME-2.csv.
    """
    figure, folder = ax.figure, os.environ.get("CACHELAB_CHARTS")
    kept = figure.kept if isinstance(ax, ChartAxes) else Kept(None, {"n": 1}, {})
    kept.name = name or kept.name
    kept.charts[figure.axes.index(ax)] = chart
    if not folder or not kept.name or len(kept.charts) < kept.layout["n"]:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = Path(folder, f"{kept.name}.json")
    told = {"environment": environment(), "layout": kept.layout, "charts": []}
    for i, (_, chart) in enumerate(sorted(kept.charts.items()), start=1):
        df, data = chart["data"], f"{kept.name}.csv" if kept.layout["n"] == 1 else f"{kept.name}-{i}.csv"
        df.to_csv(file.with_name(data), index=False, lineterminator="\n")
        dtypes = {column: "str" if is_string_dtype(dtype) else str(dtype) for column, dtype in df.dtypes.items()}
        told["charts"].append(chart | {"data": data, "rows": len(df), "dtypes": dtypes})
    file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _draw(file, read(file))


def redraw(folder: str | Path) -> list[Path]:
    """Draw every kept figure of a folder again from its data, running nothing else; return the SVG files written.

    All are read before the first is drawn: a file that is missing or malformed raises FigureError, and nothing has changed.
    """
    files = kept_in(folder)
    for file in files:
        read(file)
    return [_draw(file, read(file)) for file in files]  # anew: meanwhile a notebook may have written it


def kept_in(folder: str | Path) -> list[Path]:
    """Return the JSON files of the figures that a folder keeps, in order; FigureError if it keeps none, or one by halves."""
    folder = Path(folder)
    files = sorted(folder.glob("*.json"))
    for picture in sorted(folder.glob("*.svg")):
        if (file := picture.with_suffix(".json")) not in files:
            raise FigureError(f"{file} is missing: {_way_out(file)}")
    if not files:
        what = "holds no figures" if folder.is_dir() else "is no folder"
        raise FigureError(f"{folder} {what}: name one that `python -m cachelab charts` has drawn, such as charts/")
    return files


def read(file: Path) -> dict:
    """Return what is told of a kept figure, each chart with its frame as ``df``; FigureError names what is wrong with it."""
    part = file
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        figure = {key: told[key] for key in ("environment", "layout", "charts")}
        for chart in figure["charts"]:
            data, dtypes, rows = file.with_name(chart["data"]), chart["dtypes"], chart["rows"]
            part = data
            df = chart["df"] = pd.read_csv(data, dtype=dtypes, keep_default_na=False, na_values=[""])
            for what, found, wanted in (("columns", list(df.columns), list(dtypes)), ("rows", len(df), rows)):
                if found != wanted:
                    raise ValueError(f"{what} {found} instead of {wanted}")
            part = file
        return figure
    except FileNotFoundError:
        raise FigureError(f"{part} is missing: {_way_out(part)}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FigureError(f"{part} is malformed ({_briefly(error)}): {_way_out(part)}") from None


def environment(client: redis.Redis | None = None) -> dict[str, object]:
    """Return what a measurement depends on: server, packages, processor, system, day and scale; no names, no paths.

    ``client`` is the redis.Redis that was measured; without one, the shared client is asked if this process has made any,
    and a measurement that used no server names none.
    """
    told = {"python": platform.python_version(), "redis-py": version("redis"), "hiredis": version("hiredis")}
    told |= {"cpu": _processor(), "cores": os.cpu_count(), "system": _system()}
    told |= {"date": datetime.now(UTC).date().isoformat(), "scale": scale()}
    return _server(client) | told


def _server(client: redis.Redis | None) -> dict[str, str]:
    """Return the name and version of the server, or nothing if none was used or none answers."""
    if client is None and not cachelab.client._clients:
        return {}
    try:
        info = (cachelab.connect() if client is None else client).info("server")
    except (redis.RedisError, CachelabError):
        return {}
    name = "valkey" if "valkey_version" in info else "redis"
    return {"server": f"{name.capitalize()} {info[f'{name}_version']}"}


def _draw(file: Path, told: dict) -> Path:
    """Draw one kept figure into its SVG and PNG."""
    from cachelab.lab import charts

    try:
        axes = panels(**told["layout"])
        for ax, chart in zip(axes, told["charts"], strict=True):
            charts.KINDS[chart["kind"]](chart["df"], ax=ax, alt=chart["alt"], **chart["arguments"])
        title = " / ".join(chart["arguments"]["title"] for chart in told["charts"])
    except (ValueError, LookupError, TypeError) as error:
        raise FigureError(f"{file} is malformed ({_briefly(error)}): {_way_out(file)}") from error
    return save(axes[0].figure, file.with_suffix(".svg"), title)


def save(figure: Figure, svg: Path, title: str) -> Path:
    """Write a figure as SVG, and as PNG beside it, with its title and its words; return the SVG file."""
    told = {"Title": title, "Description": alt_text(figure)}
    with house_style():
        figure.savefig(svg, metadata=told | {"Date": None, "Creator": None})
        figure.savefig(svg.with_suffix(".png"), metadata=told)
    return svg


def _way_out(file: Path) -> str:
    number = file.name[:2]
    only = f" --only {number}" if number.isdigit() else ""
    return f"restore it (git restore {file}) or measure it again (python -m cachelab charts{only})"


def _briefly(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())


def _system() -> str:
    """Return the system as people name it; a kernel's release can carry names of its machine."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"macOS {platform.mac_ver()[0]}" if platform.system() == "Darwin" else platform.system()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
