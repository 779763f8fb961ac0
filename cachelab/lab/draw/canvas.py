"""The canvas: empty axes in the house style, how a notebook shows them, how they become files."""

import base64
import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cachelab._check import whole

STYLE = Path(__file__).with_name("house.mplstyle")
SCREEN_DPI = 90  # CSS pixels an inch in a notebook; the PNG holds twice as many


@dataclass
class Kept:
    """What a figure is to be kept as: its name, the arguments of `subplots`, its charts by axes."""

    name: str | None
    layout: dict[str, int | bool]
    charts: dict[int, dict]


class ChartFigure(Figure):
    """A figure that collects what its charts are to be kept as."""

    kept: Kept


class ChartAxes(Axes):
    """Axes that a notebook shows as its whole figure, once, with alternative text.

    The figure is unknown to pyplot: nothing is open to be closed, and the inline backend does not
    show it a second time.
    """

    alt: str = ""

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, dict]]:
        alt = alt_text(self.figure)
        width, height = (round(inches * SCREEN_DPI) for inches in self.figure.get_size_inches())
        with house_style():
            self.figure.savefig(png := io.BytesIO(), format="png")
        data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": alt}
        return data, {"image/png": {"alt": alt, "width": width, "height": height}}


def house_style() -> AbstractContextManager[None]:
    """Return the context in which charts are drawn: matplotlib's defaults and the house style."""
    return matplotlib.style.context(STYLE, after_reset=True)


def subplots(
    n: int = 2,
    name: str | None = None,
    across: bool = False,
    sharex: bool = False,
    sharey: bool = False,
) -> list[ChartAxes]:
    """Return ``n`` empty axes of one figure, each to be handed to a chart as ``ax=``.

    Args:
        n: How many.
        name: File name under which the figure is kept when the last of its axes has been drawn.
        across: Side by side instead of stacked.
        sharex: One x axis for all.
        sharey: One y axis for all.
    """
    whole("n", n, least=1)
    rows, columns, size = (1, n, (5.2 * n, 5)) if across else (n, 1, (9, 4.2 * n))
    with house_style():
        figure = ChartFigure(figsize=size if n > 1 else None)
        FigureCanvasAgg(figure)
        axes = figure.subplots(
            rows,
            columns,
            sharex=sharex,
            sharey=sharey,
            squeeze=False,
            subplot_kw={"axes_class": ChartAxes},
        )
    figure.kept = Kept(name, {"n": n, "across": across, "sharex": sharex, "sharey": sharey}, {})
    return list(axes.flat)


def alt_text(figure: Figure) -> str:
    """Return the alternative texts of a figure's charts as one."""
    alts = [getattr(ax, "alt", "") for ax in figure.axes]
    return " ".join(alt for alt in alts if alt)


def save(figure: Figure, svg: Path, title: str) -> Path:
    """Write a figure as SVG, and as PNG beside it, with its title and words; return the SVG.

    A figure that cannot be written whole, as on a full disk, is not left there cut short.
    """
    metadata = {"Title": title, "Description": alt_text(figure)}
    png = svg.with_suffix(".png")
    try:
        with house_style():
            figure.savefig(svg, metadata=metadata | {"Date": None, "Creator": None})
            figure.savefig(png, metadata=metadata)
    except OSError:
        svg.unlink(missing_ok=True)
        png.unlink(missing_ok=True)
        raise
    return svg
