"""Panels on a live server: a prompt that asks a cache, and buttons that break what readers read from."""

import asyncio
import html
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter

import ipywidgets
import redis

from cachelab.aside import CacheAside
from cachelab.errors import CachelabError
from cachelab.lab import outage
from cachelab.lab.pictures import Picture, Told


def ask(cache: CacheAside, client: redis.Redis, id: str, prefix: str = "") -> dict[str, str | float | None]:
    """Ask a cache for one id: return what came, hit or miss, the time in ms, and the seconds its key has left.

    client, prefix: where the cache keeps its keys. seconds_left is None when no key is kept or Redis is away.
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
    left = left / 1000 if left > 0 else None
    return {"id": id, "value": value, "outcome": outcome, "ms": ms, "seconds_left": left}


def ask_a_user(
    cache: CacheAside, client: redis.Redis, id: str = "user-42", prefix: str = "", rows: int = 8
) -> ipywidgets.VBox:
    """Return a prompt for ids: Enter or the button asks the cache through `ask`; the last answers stand below, newest first."""
    field = ipywidgets.Text(value=id, description="User id", style={"description_width": "initial"})
    button, answers, seen = ipywidgets.Button(description="Ask"), Told(), []
    answers.layout.min_height = f"{2 * rows + 2}em"  # what stands below does not move

    def press(*_) -> None:
        button.description = "asking …"  # and not disabled, which would take the focus away
        try:
            seen.insert(0, ask(cache, client, field.value, prefix))
            answers.value = _table(seen[:rows])
        except Exception as error:  # told to who asked; the prompt goes on
            answers.value = f"<p>{html.escape(str(error))}</p>{_table(seen[:rows])}"
        finally:
            button.description = "Ask"

    button.on_click(press)
    field.on_msg(lambda _, content, buffers: press() if content.get("event") == "submit" else None)  # Enter
    return ipywidgets.VBox([ipywidgets.HBox([field, button]), answers])


def break_the_server(
    applications: Mapping[str, Callable[[str], outage.Get]], rows: Mapping[str, str], seconds: float = 120
) -> ipywidgets.VBox:
    """Return buttons that start readers of a server of its own, and kill, freeze, thaw and restart it while they read.

    applications: {name: function of the server's URL that returns the ``get`` which the readers call}. rows: what the
    database holds. The chart of the last ten seconds is drawn again twice a second, between two cells. Nothing runs before
    "start"; "stop", or ``seconds``, ends readers and server.
    """
    which = ipywidgets.Dropdown(
        options=list(applications), description="application", style={"description_width": "initial"}
    )
    runs = "The server runs."
    states = {"start": runs, "kill": "The server is dead.", "restart": runs, "freeze": "The server is frozen."}
    states |= {"thaw": runs, "stop": "Nothing runs. Press start."}
    buttons = {name: ipywidgets.Button(description=name, layout={"width": "6em"}) for name in states}
    picture, told = Picture(quiet=True), Told()
    picture.layout.min_height, told.layout.min_height = "460px", "2.5em"
    live: list[outage.Live] = []
    drawing: set[asyncio.Task] = set()  # the loop itself keeps no strong reference

    def show() -> None:
        if live and not (reads := live[0].recent()).empty:
            picture.show(lambda: outage.recent_chart(reads))

    async def show_on() -> None:
        for _ in range(round(2 * seconds)):
            await asyncio.sleep(0.5)
            if not live:
                return
            show()
        stop()

    def start() -> None:
        if not live:
            live.append(outage.Live(applications[which.value], rows))
            which.disabled = True
            drawing.clear()
            with suppress(RuntimeError):  # outside a kernel no loop runs: each button draws once
                drawing.add(asyncio.get_running_loop().create_task(show_on()))

    def stop() -> None:
        show()
        while live:
            live.pop().close()
        which.disabled, told.value = False, states["stop"]

    def press(button: ipywidgets.Button) -> None:
        name = button.description
        try:
            if name in ("start", "stop"):
                {"start": start, "stop": stop}[name]()
            elif live:
                getattr(live[0].server, name)()
            show()
            told.value = states[name if live else "stop"]
        except CachelabError as error:  # such as thawing a server that is dead
            told.value = html.escape(str(error))

    for button in buttons.values():
        button.on_click(press)
    return ipywidgets.VBox([which, ipywidgets.HBox([*buttons.values()]), told, picture])


def _table(rows: list[dict]) -> str:
    """Return dictionaries of the same keys as an HTML table."""
    lines = (
        [("th", [name.replace("_", " ") for name in rows[0]]), *(("td", row.values()) for row in rows)] if rows else []
    )
    cells = ("".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in line) for tag, line in lines)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table>"
