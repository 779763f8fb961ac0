"""Layout: scales, ticks, titles and names on axes, placed so that no text touches another."""

import itertools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation
from pandas.api.types import is_numeric_dtype

from cachelab.lab.draw.roles import Look
from cachelab.lab.draw.units import written

# Of a picture that is drawn again: sharp enough to be projected, and quickly drawn.
RENDER_DPI = 135

# To be named: name, look, x and y; None for what is no line and can only stand in a legend.
Line = tuple[str, Look, Any, Any]


@dataclass
class Drawn:
    """What a drawer leaves to be finished: the data in words, small print, lines to be named."""

    words: str
    note: str = ""
    lines: Sequence[Line] = ()
    inside: bool = False  # names stand beside their lines instead of at the lines' ends


class Frame:
    """Where axes and titles stand in a picture that is drawn again, so that nothing jumps.

    The layout of the first chart is kept for the next ones. That makes them fast as well: to find
    a layout, everything is measured several times. For a chart that does not fit in, the frame
    takes the room it needs, and keeps that.
    """

    def __init__(self) -> None:
        self.shape: tuple = ()  # of the figure, for which all the rest was found
        self.places: list[Bbox] = []  # of each axes, in shares of the figure
        self.titles: dict[int, tuple[float, float]] = {}  # where each begins and ends, in pixels
        self.lines = 2  # that each title has
        self.found = False

    def draw(self, draw: Callable[[], Axes]) -> Axes:
        """Return what ``draw()`` returns, rendered in this frame; it may be called three times."""
        token = _FRAME.set(self)
        try:
            if self.found and self._holds(ax := draw()):
                return ax
            self.found = False
            self._find(draw().figure)
            _render((ax := draw()).figure)
            return ax
        finally:
            _FRAME.reset(token)

    def place(self, ax: Axes) -> None:
        """Put axes, of which all data are drawn, where they belong."""
        if (number := ax.figure.axes.index(ax)) < len(self.places):
            ax.figure.set_layout_engine("none")
            ax.set_position(self.places[number])
            # Limits that follow from the data are found only when asked for.
            ax.get_xlim(), ax.get_ylim()

    def titled(self, text: Text, left: float, right: float) -> None:
        """Give a title, which may reach from left to right, as many lines as all have here."""
        lines = 1 + text.get_text().count("\n")
        if not self.found:
            self.titles[text.figure.axes.index(text.axes)] = left, right
            self.lines = max(self.lines, lines)
        text.set_text("\n" * (self.lines - lines) + text.get_text())

    def _holds(self, ax: Axes) -> bool:
        """Render a figure and return whether it has this frame's shape and all ink inside."""
        figure = ax.figure
        if self.shape != _shape(figure):
            return False
        ink = _render(figure)
        edges = (ink[:2], ink[-2:], ink[:, :2], ink[:, -2:])
        names = (ax.yaxis.label.get_window_extent() for ax in figure.axes)
        return all((edge == 255).all() for edge in edges) and all(name.x0 >= 0 for name in names)

    def _find(self, figure: Figure) -> None:
        """Take the places that a layout has found.

        Where the frame has held others, take the room that both leave free.
        """
        figure.draw_without_rendering()
        places = [ax.get_position() for ax in figure.axes]
        if self.shape == _shape(figure):
            places = [Bbox.intersection(*both) for both in zip(self.places, places, strict=True)]
        else:  # room for ticks that are a little wider than these
            places = [
                Bbox.from_extents(x0 + 0.012, y0, x1, y1)
                for x0, y0, x1, y1 in (box.extents for box in places)
            ]
        self.shape, self.places, self.found = _shape(figure), places, True


_FRAME: ContextVar[Frame | None] = ContextVar("frame", default=None)


def pixels(figure: Figure) -> np.ndarray:
    """Return a rendered figure as rows of pixels: red, green, blue, opacity."""
    assert isinstance(figure.canvas, FigureCanvasAgg)
    return np.asarray(figure.canvas.buffer_rgba())


def _render(figure: Figure) -> np.ndarray:
    figure.set_dpi(RENDER_DPI)
    figure.canvas.draw()
    return pixels(figure)


def _shape(figure: Figure) -> tuple:
    return len(figure.axes), *figure.get_size_inches()


def rows_of(ax: Axes, names: Iterable, per_row: float) -> None:
    """Give each category a row, the first on top, in a figure tall enough for them."""
    names = [textwrap.fill(str(name), 24) for name in names]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, -0.6)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)
    if len(ax.figure.axes) == 1:
        wide, tall = ax.figure.get_size_inches()
        ax.figure.set_size_inches(wide, max(tall, 1.8 + per_row * len(names)))


def is_log(values: pd.Series, log: bool | None) -> bool:
    """Return whether an axis is to be logarithmic; ValueError if its values cannot stand on one."""
    if not is_numeric_dtype(values) or not np.isfinite(values.to_numpy(float)).all():
        some = list(values.unique()[:5])
        raise ValueError(f"an axis needs finite numbers, and {values.name!r} holds {some}")
    least = values.min()
    if log and least <= 0:
        smallest = f"the smallest {values.name!r} is {least:g}"
        raise ValueError(f"a logarithmic axis needs values above 0, and {smallest}")
    return bool(least > 0 and values.max() > 30 * least) if log is None else log


def set_axis(
    ax: Axes,
    which: str,
    values: pd.Series,
    unit: str,
    log: bool | None,
    ticks: Sequence[float] = (),
) -> str:
    """Set scale, limits and ticks of an axis whose data are drawn.

    Args:
        ax: Where the data are drawn.
        which: "x" or "y".
        values: The data along the axis.
        unit: Their unit.
        log: Whether the axis is logarithmic; None: where the data span more than 30 times.
        ticks: Where measurements stand; ticks stand there too if the points were chosen and few.

    Returns:
        What to say of the axis: ", log axis" or nothing.
    """
    log = is_log(values, log)
    axis, low, high = getattr(ax, f"{which}axis"), float(values.min()), float(values.max())
    getattr(ax, f"set_{which}scale")("log" if log else "linear")
    if unit == "%" and not log:
        getattr(ax, f"set_{which}lim")(0, 1)
    elif low >= 0 and not log and not len(ticks):
        getattr(ax, f"set_{which}lim")(0, auto=None)
    wide = which == "x" and ax.bbox.width > 0.6 * ax.figure.bbox.width
    if unit != "%" and _chosen(ticks, log, wide):
        axis.set_major_locator(FixedLocator(np.sort(ticks)))
    elif log:
        axis.set_major_locator(LogLocator(subs=_steps(high / low, which, wide), numticks=12))
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_minor_locator(NullLocator())
    shown = unit if unit in ("s", "%", "×") else ""
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: written(value, shown, None if log else high))
    )
    return ", log axis" if log else ""


def _chosen(ticks: Sequence[float], log: bool, wide: bool) -> bool:
    """Return whether points were chosen, not measured, and are few and far enough apart."""
    if not 1 < len(ticks) <= 8 or any(float(f"{tick:.2g}") != tick for tick in ticks):
        return False
    places = np.sort(np.log10(ticks) if log else np.asarray(ticks, float))
    return bool(np.diff(places).min() > (0.07 if wide else 0.11) * np.ptp(places))


def _steps(span: float, which: str, wide: bool) -> tuple[int, ...]:
    """Return which numbers of a decade have ticks, by how many decades share the axis's length."""
    if which == "y":  # labels stand above one another
        return (1, 2, 5) if span < 200 else (1,)
    if wide:
        return (1, 2, 5) if span < 40 else (1, 3) if span < 5000 else (1,)
    return (1, 2, 5) if span < 20 else (1,)


def finish(ax: Axes, title: str, note: str, done: Drawn) -> None:
    """Write title and small print; name the lines where there is room for it.

    That is at their ends, beside them, or else in a legend above.
    """
    figure, lines, frame = ax.figure, done.lines, _FRAME.get()
    pad = 14.0
    if frame and frame.found:
        frame.place(ax)
    if note:
        before = " ".join(figure.get_supxlabel().split())  # what another chart of the figure said
        notes = dict.fromkeys(part for said in (before, note) for part in said.split("; ") if part)
        small = textwrap.fill("; ".join(notes), int(9.5 * figure.get_size_inches()[0]))
        figure.supxlabel(small, x=0.012, ha="left", fontsize=13, color="#555555")
    _title(ax, title, pad)
    direct = 0 < len(lines) <= 3 and all(x is not None and len(x) for _, _, x, _ in lines)
    if direct and not done.inside:
        _name_at_end(ax, lines)
    elif lines and not (direct and _name_inside(ax, lines)):
        pad += _legend(ax, lines)
        _title(ax, title, pad)
    if values := [text for text in ax.texts if text.get_gid() == "value"]:
        _fit_values(ax, values)
        _title(ax, title, pad)


def _fit_values(ax: Axes, values: Sequence[Annotation]) -> None:
    """Turn the values on bars upright where they would touch, and make room above.

    Where that does not help, drop them.
    """
    for mend in (lambda text: text.set_rotation(90), lambda text: text.remove()):
        if _overlap([text.get_window_extent() for text in values]):
            for text in values:
                mend(text)
    left = [text for text in values if text.axes]
    above = [text.get_window_extent().y1 - ax.transData.transform(text.xy)[1] for text in left]
    if above and (most := max(text.xy[1] for text in values)) > 0:
        ax.set_ylim(top=most * ax.bbox.height / (ax.bbox.height - max(above) - 4))


def _title(ax: Axes, title: str, pad: float) -> None:
    """Write the title above the chart and the names at its sides.

    It takes as few lines as fit, of about the same length.
    """
    text, figure, frame = ax.set_title("", pad=pad), ax.figure, _FRAME.get()
    laid_out = bool(frame and frame.found)
    if frame and frame.found:
        left, right = frame.titles[figure.axes.index(ax)]
    else:
        figure.draw_without_rendering()
        left, right = ax.get_tightbbox().intervalx
    shift = ScaledTranslation((left - ax.bbox.x0) / figure.dpi, 0, figure.dpi_scale_trans)
    text.set_transform(text.get_transform() + shift)
    widths = range(12, max(12, len(title)) + 1)
    ways = dict.fromkeys(textwrap.fill(title, chars) for chars in widths)
    for lines in sorted(ways, key=lambda lines: lines.count("\n")):
        text.set_text(lines)
        if text.get_window_extent().width <= right - left:
            break
    else:
        text.set_text(textwrap.fill(title, 12))
    if frame:
        frame.titled(text, left, right)
    if not laid_out:
        figure.draw_without_rendering()


def _name_at_end(ax: Axes, lines: Sequence[Line]) -> None:
    """Write each name right of the axes, as high as its line ends or as near as others allow."""
    ends = sorted(
        (ax.transData.transform((x[-1], y[-1]))[1], i) for i, (_, _, x, y) in enumerate(lines)
    )
    right: dict[str, Any] = {"spot": (1, 0.5), "offset": (10, 0), "ha": "left", "va": "center"}
    texts = [_name(ax, lines[i][0], lines[i][1], **right) for _, i in ends]
    tall = [text.get_window_extent().height * 1.1 for text in texts]
    heights = [end for end, _ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + (tall[i] + tall[i - 1]) / 2)
    heights[-1] = min(heights[-1], ax.bbox.y1)
    for i in reversed(range(len(heights) - 1)):
        heights[i] = min(heights[i], heights[i + 1] - (tall[i] + tall[i + 1]) / 2)
    for text, height in zip(texts, heights, strict=True):
        text.xy = (1, (height - ax.bbox.y0) / ax.bbox.height)


def _name_inside(ax: Axes, lines: Sequence[Line]) -> bool:
    """Write each name beside its line where it touches nothing.

    Returns:
        Whether all found room; if not, none is written.
    """
    paths = [line.get_path().transformed(line.get_transform()) for line in ax.get_lines()]
    texts: list[Annotation] = []
    for line in lines:
        text = _beside(ax, line, paths, [other.get_window_extent().padded(5) for other in texts])
        if text is None:
            for other in texts:
                other.remove()
            return False
        texts.append(text)
    return True


def _beside(
    ax: Axes, line: Line, paths: Sequence[Path], boxes: Sequence[Bbox]
) -> Annotation | None:
    """Write a name beside its line, clear of all paths and boxes; None if there is no place."""
    name, look, x, y = line
    for share, side in itertools.product((0.5, 0.65, 0.35, 0.8, 0.2, 0.9), (1, -1)):
        at = ax.transData.transform((x[np.searchsorted(y, share)], share))
        spot, ha = ax.transAxes.inverted().transform(at), "left" if side > 0 else "right"
        text = _name(ax, name, look, spot, (12 * side, 0), ha=ha, va="center")
        box = text.get_window_extent().padded(5)
        inside = ax.bbox.x0 < box.x0 and box.x1 < ax.bbox.x1
        crossed = any(path.intersects_bbox(box, filled=False) for path in paths)
        if inside and not crossed and not _overlap([*boxes, box]):
            return text
        text.remove()
    return None


def _name(ax: Axes, name: str, look: Look, spot: tuple, offset: tuple, **how: str) -> Annotation:
    """Write a name in its line's colour, darkened until it reads well on white."""
    color = np.array(to_rgb(look.color))
    while color @ (0.2126, 0.7152, 0.0722) > 0.35:
        color *= 0.95
    text = textwrap.fill(name, 18)
    return ax.annotate(
        text,
        spot,
        offset,
        "axes fraction",
        textcoords="offset points",
        color=color,
        fontweight="bold",
        **how,
    )


def _legend(ax: Axes, lines: Sequence[Line]) -> float:
    """Put a legend between title and axes, in as few rows as fit; return its height in points."""
    handles = [_handle(*line[:3]) for line in lines]
    for columns in range(len(lines), 0, -1):
        legend = ax.legend(
            handles=handles, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1.02)
        )
        box = legend.get_window_extent()
        if box.width <= ax.bbox.width:
            break
    return box.height * 72 / ax.figure.dpi + 8


def _handle(name: str, look: Look, x: np.ndarray | None) -> Patch | Line2D:
    if x is None:
        return Patch(**look.hatched, label=name)
    mark = look.mark if look.hollow else {}
    return Line2D([], [], **look.stroke | mark, marker=look.marker, label=name)


def _overlap(boxes: Sequence[Bbox]) -> bool:
    return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
