"""What stands where a panel was when no kernel runs: a picture of its controls and its chart."""

import base64
import io
import math
from typing import Any

import ipywidgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from cachelab.lab.draw.canvas import SCREEN_DPI, house_style
from cachelab.lab.draw.layout import RENDER_DPI, pixels
from cachelab.lab.panels.display import LiveRegion, Picture

SENTENCE = "A picture of a panel, which needs a running kernel: run this cell."
WIDE, ROW = 9.0, 0.42  # inches; a chart is as wide
LABEL, END = 0.3, 0.8  # where a label ends, and the track of a slider; shares of the width
GREY, DARK, PALE = "#999999", "#333333", "#eeeeee"

Row = tuple[ipywidgets.Widget, ...]


class Panel(ipywidgets.VBox):
    """Rows of controls above what they show.

    A notebook keeps a picture of it too, which GitHub and HTML show: they have no kernel.
    """

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        shown = super()._repr_mimebundle_(**kwargs)
        png, wide, tall = self.still()
        shown |= {"image/png": base64.b64encode(png).decode(), "text/plain": self.words()}
        return shown, {"image/png": {"alt": self.words(), "width": wide, "height": tall}}

    def still(self) -> tuple[bytes, int, int]:
        """Return a PNG of the panel as it is now, its width and its height in CSS pixels."""
        charts = [part.image for part in self.children if isinstance(part, Picture) and part.image]
        parts = [_drawn(self._rows()), *charts]
        size = max(part.width for part in parts), sum(part.height for part in parts)
        whole, top = Image.new("RGB", size, "white"), 0
        for part in parts:
            whole.paste(part, (0, top))
            top += part.height
        whole.save(png := io.BytesIO(), "png", optimize=True)
        wide, tall = (round(length * SCREEN_DPI / RENDER_DPI) for length in size)
        return png.getvalue(), wide, tall

    def words(self) -> str:
        """Return the same for who cannot see it."""
        controls = [control for row in self._rows() for control in row]
        said = ", ".join(f"{one.description} {_set_to(one)}".strip() for one in controls)
        alts = [part.alt for part in self.children if isinstance(part, Picture)]
        return " ".join([f"{SENTENCE} Its controls: {said}.", *alts]).strip()

    def _rows(self) -> list[Row]:
        parts = [part for part in self.children if not isinstance(part, LiveRegion)]
        return [part.children if isinstance(part, ipywidgets.HBox) else (part,) for part in parts]


def _drawn(rows: list[Row]) -> Image.Image:
    """Return a picture of controls, with the sentence above them."""
    tall = ROW * (1 + len(rows))
    with house_style():
        figure = Figure(figsize=(WIDE, tall), dpi=RENDER_DPI, layout="none")
        FigureCanvasAgg(figure)
        figure.text(0.012, 1 - ROW / 2 / tall, SENTENCE, va="center", fontweight="bold")
        for number, row in enumerate(rows, 1):
            right = 0.0
            for control in row:
                right = _draw(figure, control, right, 1 - (number + 0.5) * ROW / tall)
        figure.canvas.draw()
    return Image.fromarray(pixels(figure)).convert("RGB")


def _draw(figure: Figure, control: ipywidgets.Widget, left: float, y: float) -> float:
    """Draw a control from ``left`` on, at the height ``y``; return where the next may begin."""
    if isinstance(control, ipywidgets.Button):
        return _box(figure, left + 0.012, y, control.description, 0.1)
    figure.text(LABEL, y, control.description, ha="right", va="center")
    left, place = LABEL + 0.03, {"transform": figure.transFigure}
    if (share := _share(control)) is None:
        arrow = "  ▾" if isinstance(control, ipywidgets.Dropdown) else ""
        return _box(figure, left, y, _set_to(control) + arrow, END - left)
    at = left + share * (END - left)
    figure.add_artist(Line2D([left, END], [y, y], linewidth=5, color=GREY, **place))
    figure.add_artist(Line2D([at], [y], marker="o", markersize=14, color=DARK, **place))
    figure.text(END + 0.03, y, _set_to(control), va="center")
    return 1.0


def _box(figure: Figure, left: float, y: float, text: str, wide: float) -> float:
    tall = 0.7 * ROW / figure.get_size_inches()[1]
    look = {"facecolor": PALE, "edgecolor": GREY, "transform": figure.transFigure}
    figure.add_artist(Rectangle((left, y - tall / 2), wide, tall, **look))
    figure.text(left + wide / 2, y, text, ha="center", va="center")
    return left + wide


def _share(control: ipywidgets.Widget) -> float | None:
    """Return how far a slider's handle is from its left end; None for what is no slider."""
    if isinstance(control, ipywidgets.SelectionSlider):
        return control.index / max(1, len(control.options) - 1)
    if not control.has_trait("max"):
        return None
    base = getattr(control, "base", None)
    value = math.log(control.value, base) if base else control.value
    return (value - control.min) / (control.max - control.min)


def _set_to(control: ipywidgets.Widget) -> str:
    """Return what a control is set to, as it stands beside it; nothing for a button."""
    if control.has_trait("options"):
        chosen = control.options[control.index]
        return str(chosen[0] if isinstance(chosen, tuple) else chosen)
    value = getattr(control, "value", "")
    return format(value, control.readout_format) if control.has_trait("readout_format") else value
