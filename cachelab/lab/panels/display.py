"""What panels show: charts that are drawn again in their place, words that are read out."""

import base64
import html
import io
from collections.abc import Callable, Iterable

import ipywidgets
import traitlets
from matplotlib.axes import Axes
from PIL import Image

from cachelab.lab.draw.canvas import SCREEN_DPI, alt_text
from cachelab.lab.draw.layout import Frame, pixels

# CSS classes: what is read out, what changes too often for that, and the panel around them.
REGION, QUIET, PANEL = "cachelab-region", "cachelab-quiet", "cachelab-panel"

# A slider through options: its read-out is no field, for nothing could come of what is typed there.
OPTIONS = "cachelab-options"

# Large enough to be read from the back row, and what has the focus is seen without colours, by a
# ring that stands out from what a theme puts behind it.
_STYLE = """
.PANEL { --jp-widgets-font-size: var(--cachelab-font-size, 16px);
  --jp-widgets-inline-height: 2.1em; --jp-widgets-slider-handle-size: 22px;
  --jp-widgets-slider-track-thickness: 6px; font-size: var(--jp-widgets-font-size); }
.PANEL .noUi-target { background: #999999; }
.PANEL [role=slider] { background: #333333; border: 1px solid white; }
.PANEL .widget-readout { min-width: 4.5em; }
.PANEL .widget-button { height: 2.2em; line-height: 2.2em; }
.PANEL :is(button, select, input, [role=slider], .widget-readout):focus-visible {
  outline: 3px solid var(--jp-ui-font-color1, #222222) !important; outline-offset: -3px; }
.PANEL [role=slider]:focus-visible { outline-offset: 2px; }
.PANEL td, .PANEL th { padding: 0.1em 1em; text-align: left; }
""".replace("PANEL", PANEL)

# The sliders of ipywidgets have no name and tell their own number (of a logarithmic one the
# exponent) instead of the one that stands beside them, and its HTML is no live region. JupyterLab
# takes arrow keys for its own, to go from cell to cell, unless what has the focus forbids it.
# Nothing but a script can say so; it waits until it is on the page.
_READ_OUT = """(function name() {
  const region = element.closest(".REGION"), panel = region && region.parentElement;
  if (!panel) return setTimeout(name, 100);
  const set = (node, attribute, text) =>
    node.getAttribute(attribute) === text || node.setAttribute(attribute, text);
  const each = (kind, mend) => panel.querySelectorAll(kind).forEach(mend);
  const mend = () => {
    each("[role=slider]", slider => {
      const row = slider.closest(".widget-slider");
      set(slider, "aria-label", row.querySelector(".widget-label").textContent);
      set(slider, "aria-valuetext", row.querySelector(".widget-readout").textContent);
    });
    each("select, [role=slider]", one => set(one, "data-lm-suppress-shortcuts", "true"));
    each(".OPTIONS .widget-readout", readout => set(readout, "contenteditable", "false"));
  };
  const parts = {subtree: true, childList: true, characterData: true,
    attributeFilter: ["aria-valuetext", "contenteditable"]};
  new MutationObserver(mend).observe(panel, parts);
  set(region, "aria-live", region.classList.contains("QUIET") ? "off" : "polite");
  mend();
  panel.classList.add("PANEL");
  if (document.getElementById("PANEL")) return;
  const style = document.createElement("style");
  document.head.append(Object.assign(style, {id: "PANEL", textContent: `STYLE`}));
})();"""
_WORDS = {"REGION": REGION, "QUIET": QUIET, "OPTIONS": OPTIONS, "PANEL": PANEL, "STYLE": _STYLE}
for _name, _text in _WORDS.items():
    _READ_OUT = _READ_OUT.replace(_name, _text)


class LiveRegion(ipywidgets.VBox):
    """HTML, in ``value``, that a screen reader reads out when it changes, unless ``quiet``.

    It has the sliders beside it read out as well.
    """

    value = traitlets.Unicode()

    def __init__(self, quiet: bool = False) -> None:
        script = {
            "output_type": "display_data",
            "data": {"application/javascript": _READ_OUT},
            "metadata": {},
        }
        shown = ipywidgets.HTML()
        traitlets.dlink((self, "value"), (shown, "value"))
        super().__init__([shown, ipywidgets.Output(outputs=(script,), layout={"height": "0"})])
        self.layout.overflow = "visible"
        self.add_class(REGION)
        if quiet:
            self.add_class(QUIET)


class Picture(LiveRegion):
    """A chart that keeps its size and the place of its axes while it is drawn again.

    Its alternative text is read out.
    """

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet)
        self.image: Image.Image | None = None
        self.alt = ""
        self._frame = Frame()

    def make_room(self, draws: Iterable[Callable[[], Axes]]) -> None:
        """Find a frame that holds all of these charts, so that later ones seldom need another."""
        for draw in draws:
            self._frame.draw(draw)

    def show(self, draw: Callable[[], Axes]) -> None:
        """Show what ``draw()`` draws with a function of `cachelab.lab.draw.charts`."""
        figure, png = self._frame.draw(draw).figure, io.BytesIO()
        self.image, self.alt = Image.fromarray(pixels(figure)).convert("RGB"), alt_text(figure)
        # Compressed quickly: the usual level is a third smaller and twice as slow.
        self.image.save(png, "png", compress_level=1)
        wide, tall = (round(inches * SCREEN_DPI) for inches in figure.get_size_inches())
        alt = html.escape(self.alt)
        data = base64.b64encode(png.getvalue()).decode()
        # Decoded at once, so that the new picture follows the old one without a blank between.
        about = f'width="{wide}" height="{tall}" decoding="sync" alt="{alt}"'
        self.value = f'<img {about} src="data:image/png;base64,{data}">'
