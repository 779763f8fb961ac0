"""Panels to play with: sliders above a picture, on the same plain functions that the charts before them used."""

import base64
import html
import io
from collections.abc import Callable

import ipywidgets
from matplotlib.axes import Axes


def panel(draw: Callable[..., Axes], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Return controls above the chart that ``draw(**values)`` makes; it is drawn again when a control is let go.

    draw: a function with one argument for each control, which returns Axes of `cachelab.lab.charts` from data that are
    already there (within 100 ms), and never asks Redis. The picture keeps its place and size, and carries its alt text.
    """
    picture = ipywidgets.HTML()

    def show(_=None) -> None:
        picture.value = image(draw(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.continuous_update = False
        control.layout.width = "32em"
        control.style.description_width = "16em"
        control.observe(show, "value")
    show()
    return ipywidgets.VBox([*controls.values(), picture])


def image(ax: Axes) -> str:
    """Return a chart as an HTML image with its alt text."""
    png = io.BytesIO()
    ax.figure.savefig(png, format="png", dpi=90)
    data = base64.b64encode(png.getvalue()).decode()
    return f'<img width="800" alt="{html.escape(ax.alt)}" src="data:image/png;base64,{data}">'
