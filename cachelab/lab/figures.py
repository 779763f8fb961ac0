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
    _draw(file)


def redraw(folder: str | Path) -> list[Path]:
    """Draw every kept figure of a folder again from its data, running nothing else; return the SVG files written."""
    return [_draw(told) for told in sorted(Path(folder).glob("*.json"))]


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


def _draw(file: Path) -> Path:
    """Draw one kept figure into its SVG and PNG."""
    from cachelab.lab import charts

    told = json.loads(file.read_text(encoding="utf-8"))
    axes = panels(**told["layout"])
    for ax, chart in zip(axes, told["charts"], strict=True):
        df = pd.read_csv(
            file.with_name(chart["data"]),
            dtype=chart["dtypes"],
            keep_default_na=False,
            na_values=[""],
        )
        charts.KINDS[chart["kind"]](df, ax=ax, alt=chart["alt"], **chart["arguments"])
    figure, svg = axes[0].figure, file.with_suffix(".svg")
    title = " / ".join(chart["arguments"]["title"] for chart in told["charts"])
    with house_style():
        figure.savefig(svg, metadata={"Title": title, "Description": alt_text(figure), "Date": None, "Creator": None})
        figure.savefig(file.with_suffix(".png"), metadata={"Title": title, "Description": alt_text(figure)})
    return svg


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
