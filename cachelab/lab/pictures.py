"""What panels show: charts that are drawn again in their place, and words that a screen reader reads out."""

import base64
import html
import io
from collections.abc import Callable, Iterable

import ipywidgets
import numpy as np
import traitlets
from matplotlib.axes import Axes
from PIL import Image

from cachelab.lab.figures import SCREEN_DPI
from cachelab.lab.layout import Frame

# CSS classes: of what is told, of what changes too often to be read out each time, and of the panel around them
TOLD, QUIET, PANEL = "cachelab-told", "cachelab-quiet", "cachelab-panel"

# Large enough to be read from the back row, and what has the focus is seen without colours.
_STYLE = """
.PANEL { --jp-widgets-font-size: var(--cachelab-font-size, 16px); --jp-widgets-inline-height: 2.1em;
  --jp-widgets-slider-handle-size: 22px; --jp-widgets-slider-track-thickness: 6px; font-size: var(--jp-widgets-font-size); }
.PANEL .noUi-target { background: #999999; }
.PANEL [role=slider] { background: #333333; border: 1px solid white; }
.PANEL .widget-readout { min-width: 4.5em; }
.PANEL .widget-button { height: 2.2em; line-height: 2.2em; }
.PANEL :is(button, select, input, [role=slider], .widget-readout):focus-visible {
  outline: 3px solid #222222; outline-offset: -3px; }
.PANEL [role=slider]:focus-visible { outline-offset: 2px; }
.PANEL td, .PANEL th { padding: 0.1em 1em; text-align: left; }
""".replace("PANEL", PANEL)

# The sliders of ipywidgets have no name and tell their own number (of a logarithmic one the exponent) instead of the one that
# stands beside them, and its HTML is no live region. Nothing but a script can say so; it waits until it is on the page.
_READ_OUT = (
    """(function name() {
  const told = element.closest(".TOLD"), panel = told && told.parentElement;
  if (!panel) return setTimeout(name, 100);
  const set = (node, attribute, text) => node.getAttribute(attribute) === text || node.setAttribute(attribute, text);
  const tell = () => panel.querySelectorAll("[role=slider]").forEach(slider => {
    const row = slider.closest(".widget-slider");
    set(slider, "aria-label", row.querySelector(".widget-label").textContent);
    set(slider, "aria-valuetext", row.querySelector(".widget-readout").textContent);
  });
  const parts = {subtree: true, childList: true, characterData: true, attributeFilter: ["aria-valuetext"]};
  new MutationObserver(tell).observe(panel, parts);
  set(told, "aria-live", told.classList.contains("QUIET") ? "off" : "polite");
  tell();
  panel.classList.add("PANEL");
  if (document.getElementById("PANEL")) return;
  document.head.append(Object.assign(document.createElement("style"), {id: "PANEL", textContent: `STYLE`}));
})();""".replace("TOLD", TOLD)
    .replace("QUIET", QUIET)
    .replace("PANEL", PANEL)
    .replace("STYLE", _STYLE)
)


class Told(ipywidgets.VBox):
    """HTML, in ``value``, that a screen reader reads out when it changes (unless ``quiet``), as it does the sliders beside it."""

    value = traitlets.Unicode()

    def __init__(self, quiet: bool = False) -> None:
        script = {"output_type": "display_data", "data": {"application/javascript": _READ_OUT}, "metadata": {}}
        shown = ipywidgets.HTML()
        traitlets.dlink((self, "value"), (shown, "value"))
        super().__init__([shown, ipywidgets.Output(outputs=(script,), layout={"height": "0"})])
        self.layout.overflow = "visible"
        self.add_class(TOLD)
        if quiet:
            self.add_class(QUIET)


class Picture(Told):
    """A chart that keeps its size and the place of its axes while it is drawn again; its alt text is read out."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._frame = Frame()

    def make_room(self, draws: Iterable[Callable[[], Axes]]) -> None:
        """Find, before anything is shown, a frame that holds all of these charts, so that later ones seldom need another."""
        for draw in draws:
            self._frame.draw(draw)

    def show(self, draw: Callable[[], Axes]) -> None:
        """Show what ``draw()`` draws with a function of `cachelab.lab.charts`."""
        ax, png = self._frame.draw(draw), io.BytesIO()
        pixels = Image.fromarray(np.asarray(ax.figure.canvas.buffer_rgba())).convert("RGB")
        pixels.save(png, "png", compress_level=1)  # the usual level is a third smaller and twice as slow
        wide, tall = (round(inches * SCREEN_DPI) for inches in ax.figure.get_size_inches())
        data = base64.b64encode(png.getvalue()).decode()
        # decoded at once, so that the new picture stands where the old one stood without a blank between them
        look = f'width="{wide}" height="{tall}" decoding="sync" alt="{html.escape(ax.alt)}"'
        self.value = f'<img {look} src="data:image/png;base64,{data}">'
