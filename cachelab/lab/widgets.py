"""Panels to play with: sliders above a picture, on the same plain functions that the charts before them used."""

import base64
import html
import io
from collections.abc import Callable
from time import perf_counter

import ipywidgets
import pandas as pd
import redis
from matplotlib.axes import Axes

from cachelab.aside import CacheAside
from cachelab.lab import charts
from cachelab.lab.costs import read_costs
from cachelab.lab.looks import written


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


def ask(cache: CacheAside, client: redis.Redis, id: str, prefix: str = "") -> dict[str, str | float | None]:
    """Ask a cache for one id: return what came, hit or miss, the milliseconds it took, and the seconds the key has left.

    client, prefix: where the cache keeps its keys. seconds_left is None where no key is kept, or Redis does not tell.
    Whatever ``cache.get`` raises is raised here.
    """
    hits, began = cache.stats.hits, perf_counter()
    value = cache.get(id)
    ms = round(1000 * (perf_counter() - began), 2)
    outcome = "hit" if cache.stats.hits > hits else "miss"
    try:
        left = client.pttl(prefix + id)
    except redis.RedisError:
        left = -1
    return {"id": id, "value": value, "outcome": outcome, "ms": ms, "seconds_left": left / 1000 if left > 0 else None}


def ask_a_user(
    cache: CacheAside, client: redis.Redis, id: str = "user-42", prefix: str = "", rows: int = 8
) -> ipywidgets.VBox:
    """Return a prompt for ids: Enter or the button asks the cache through `ask`; the last answers stand below, newest first."""
    field = ipywidgets.Text(value=id, description="User id")
    button, answers, seen = ipywidgets.Button(description="Ask"), ipywidgets.HTML(), []

    def press(*_) -> None:
        button.disabled, button.description = True, "asking …"
        try:
            seen.insert(0, ask(cache, client, field.value, prefix))
            answers.value = _table(seen[:rows])
        except Exception as error:
            answers.value = f"<p>{html.escape(str(error))}</p>{_table(seen[:rows])}"
        finally:
            button.disabled, button.description = False, "Ask"

    button.on_click(press)
    field.on_msg(lambda _, content, buffers: press() if content.get("event") == "submit" else None)  # Enter
    return ipywidgets.VBox([ipywidgets.HBox([field, button]), answers])


def cost_of_a_hit(get: float = 0.0001, load: float = 0.002, hit_rate: float = 0.9) -> ipywidgets.VBox:
    """Return sliders above the mean and the p95 of a read by `read_costs`; get, load, in seconds, are where they begin.

    The store after a miss takes as long as the GET; the points are the chosen hit rate's.
    """

    def draw(hit_rate: float, get_ms: float, load_ms: float) -> Axes:
        get, load = get_ms / 1000, load_ms / 1000
        chosen = read_costs(get, load, get, [hit_rate]).assign(source="chosen")
        mean, p95, none = (written(seconds, "s") for seconds in chosen["seconds"])
        lines = pd.concat([read_costs(get, load, get), chosen])
        title = f"{hit_rate:.0%} hits: mean {mean}, p95 {p95}; no cache {none}"
        look = {"roles": {"mean": "cache", "no cache": "database"}, "note": "lines: model", "ylabel": "time of a read"}
        return charts.curve(lines, "hit_rate", "seconds", by="cost", title=title, logy=False, **look)

    times = {"base": 10, "min": -2, "max": 2, "step": 0.02, "readout_format": ".2f"}
    return panel(
        draw,
        hit_rate=ipywidgets.FloatSlider(
            hit_rate, min=0, max=1, step=0.01, description="hit rate", readout_format=".0%"
        ),
        get_ms=ipywidgets.FloatLogSlider(1000 * get, description="a GET, and a SET (ms)", **times),
        load_ms=ipywidgets.FloatLogSlider(1000 * load, description="a load (ms)", **times),
    )


def _table(rows: list[dict]) -> str:
    """Return dictionaries of the same keys as an HTML table."""
    lines = [[name.replace("_", " ") for name in rows[0]], *([*row.values()] for row in rows)] if rows else []
    cells = ("".join(f'<td style="padding: 0 1em">{html.escape(str(cell))}</td>' for cell in line) for line in lines)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table>"
