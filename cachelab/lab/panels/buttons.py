"""Panels with buttons, on a running server: ask a cache, break what readers read from."""

import asyncio
import html
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any

import ipywidgets
import pandas as pd
import redis
from matplotlib.axes import Axes

from cachelab import _check
from cachelab.cache.aside import CacheAside
from cachelab.errors import CachelabError
from cachelab.lab.draw import charts
from cachelab.lab.faults import kills, outage
from cachelab.lab.panels.display import LiveRegion, Picture
from cachelab.lab.panels.stills import Panel
from cachelab.lab.watch import live
from cachelab.server.cluster import Cluster
from cachelab.server.sentinel import Sentinel

RUNS = "The server runs."
STATES = {
    "start": RUNS,
    "kill": "The server is dead.",
    "restart": RUNS,
    "freeze": "The server is frozen.",
    "thaw": RUNS,
    "stop": "Nothing runs. Press start.",
}  # what is said after each button
SETS = {"cluster: 3 primaries, 3 replicas": Cluster, "a primary, 2 replicas, 3 Sentinels": Sentinel}
NODES = 6  # of each of them
FORMS = {
    "a list, popped": "a list, popped",
    "a stream, acknowledged first": "acknowledged first",
    "a stream, by WriteBehind": "WriteBehind",
}  # of `kills.FORMS`


def ask(
    cache: CacheAside, client: redis.Redis, id: str, prefix: str = ""
) -> dict[str, str | float | None]:
    """Ask a cache for one id and return what came, hit or miss, the time, how long its key lives.

    Args:
        cache: What is asked; whatever its ``get`` raises is raised here.
        client: A client of the server where the cache keeps its keys.
        id: What is asked for.
        prefix: The prefix of the cache's keys.

    Returns:
        id, value, outcome, ms, and seconds_left: None when no key is kept or Redis is away.
    """
    hits, began = cache.stats.hits, perf_counter()
    value = cache.get(id)
    ms = round(1000 * (perf_counter() - began), 2)
    outcome = "hit" if cache.stats.hits > hits else "miss"
    try:
        left = client.pttl(prefix + id)
    except redis.RedisError:
        left = -1
    seconds = left / 1000 if left > 0 else None
    return {"id": id, "value": value, "outcome": outcome, "ms": ms, "seconds_left": seconds}


def ask_a_user(
    cache: CacheAside, client: redis.Redis, id: str = "user-42", prefix: str = "", rows: int = 8
) -> ipywidgets.VBox:
    """Return a prompt for ids: Enter or the button asks the cache through `ask`.

    Args:
        cache: What is asked.
        client: A client of the server where the cache keeps its keys.
        id: What stands in the prompt at first.
        prefix: The prefix of the cache's keys.
        rows: How many of the last answers stand below, newest first.
    """
    rows = _check.whole("rows", rows, least=1)
    field = ipywidgets.Text(value=id, description="User id", style={"description_width": "initial"})
    button, answers = ipywidgets.Button(description="Ask"), LiveRegion()
    seen: list[dict] = []
    answers.layout.min_height = f"{2 * rows + 2}em"  # what stands below does not move

    def press(*_: object) -> None:
        button.description = "asking …"  # and not disabled, which would take the focus away
        try:
            seen.insert(0, ask(cache, client, field.value, prefix))
            answers.value = _table(seen[:rows])
        except Exception as error:  # shown to who asked; the prompt goes on
            answers.value = f"<p>{html.escape(str(error))}</p>{_table(seen[:rows])}"
        finally:
            button.description = "Ask"

    def enter(_: object, content: dict, buffers: object) -> None:
        if content.get("event") == "submit":
            press()

    button.on_click(press)
    field.on_msg(enter)
    return Panel([ipywidgets.HBox([field, button]), answers])


def break_the_server(
    applications: Mapping[str, Callable[[str], outage.Get]],
    rows: Mapping[str, str],
    seconds: float = 120,
) -> ipywidgets.VBox:
    """Return buttons that start readers of a server of its own, and break it while they read.

    The chart of the last ten seconds is drawn again twice a second, between two cells. Nothing
    runs before "start"; "stop", or the end of the time, ends readers and server.

    Args:
        applications: {name: function of the server's URL that returns the readers' ``get``}.
        rows: What the database holds.
        seconds: How long the readers read at most.
    """
    readers = {name: partial(outage.Readers, make, rows) for name, make in applications.items()}
    return _ServerButtons(readers, _check.number("seconds", seconds, above=0)).box


def break_a_node(
    make: Callable[[str], outage.Get], rows: Mapping[str, str], seconds: float = 120
) -> ipywidgets.VBox:
    """Return a button for each node of a cluster, or of a set under Sentinels, that is read from.

    What a button does to its node is chosen above them; who is what is told after each, and when it
    changes. The chart, the start and the end are those of `break_the_server`.

    Args:
        make: The application: a function of the set's URL that returns the readers' ``get``.
        rows: What the database holds.
        seconds: How long the readers read at most.
    """
    readers = {name: partial(outage.Readers, make, rows, kind=kind) for name, kind in SETS.items()}
    return _NodeButtons(readers, _check.number("seconds", seconds, above=0)).box


def kill_the_worker(seconds: float = 120) -> ipywidgets.VBox:
    """Return buttons that start a writer and the worker behind it, kill the worker, start another.

    Writes wait on a server of their own for the worker, which is a process and takes a quarter of
    a second for each commit. The chart of the last twenty seconds is drawn again twice a second:
    how many acknowledged writes are not in the database yet, how many of them Redis has, and how
    many are lost, as nobody has them. What the worker holds and Redis does not is the difference.
    Nothing runs before "start"; "stop", or the end of the time, ends all of it.

    Args:
        seconds: How long the writer writes at most.
    """
    writers = {name: partial(kills.Writers, form) for name, form in FORMS.items()}
    return _WorkerButtons(writers, _check.number("seconds", seconds, above=0)).box


def watch_a_server(seconds: float = 120) -> ipywidgets.VBox:
    """Return buttons that start a server in use, and put more on it, with its numbers beside.

    A server of its own has readers who go on; "load", "scan" and "fill" begin more of it, and end
    it when pressed again. The numbers are those of `observe.sampled`, anew each second, with the
    chart of the last twenty. Nothing runs before "start"; "stop", or the end of the time, ends it.

    Args:
        seconds: How long it runs at most.
    """
    servers = {policy: partial(live.Live, policy) for policy in live.POLICIES}
    return _WatchButtons(servers, _check.number("seconds", seconds, above=0)).box


class _ServerButtons:
    """The buttons, what they say and draw, and the readers while they read."""

    label = "application"
    names: Iterable[str] = STATES
    chart: Callable[[pd.DataFrame], Axes] = staticmethod(outage.recent_chart)

    def __init__(self, applications: Mapping[str, Callable[[], Any]], seconds: float) -> None:
        self.applications = applications
        self.seconds = seconds
        self.readers: Any = None  # `outage.Readers`, or what stands for them
        self.drawing: asyncio.Task[None] | None = None  # the loop itself keeps no strong reference
        self.which = ipywidgets.Dropdown(
            options=list(applications),
            description=self.label,
            style={"description_width": "initial"},
            layout={"width": "max-content"},
        )
        self.picture, self.said = Picture(quiet=True), LiveRegion()
        self.picture.layout.min_height, self.said.layout.min_height = "460px", "2.5em"
        self.box = Panel([self.which, *self.controls(), self.said, self.picture])

    def controls(self) -> list[ipywidgets.Widget]:
        """Return what stands between the choice of readers and what is said."""
        return [self.row(self.names)]

    def row(self, names: Iterable[str]) -> ipywidgets.HBox:
        """Return buttons of these names."""
        layout = {"width": "6em"}
        buttons = [ipywidgets.Button(description=name, layout=layout) for name in names]
        for button in buttons:
            button.on_click(self.press)
        return ipywidgets.HBox(buttons)

    def press(self, button: ipywidgets.Button) -> None:
        """Do what a button says, draw, and say what came of it."""
        name = button.description
        try:
            if name == "start":
                self.start()
            elif name == "stop":
                self.stop()
            elif self.readers:
                self.do(name)
            self.show()
            self.said.value = self.state(name) if self.readers else STATES["stop"]
        except CachelabError as error:  # such as thawing a server that is dead
            self.said.value = html.escape(str(error))

    def do(self, name: str) -> None:
        """Do to the server what a button says."""
        getattr(self.readers.server, name)()

    def state(self, name: str) -> str:
        """Return what is to be said after a button."""
        return STATES[name]

    def start(self) -> None:
        if self.readers:
            return
        self.readers = self.applications[self.which.value]()
        self.which.disabled = True
        with suppress(RuntimeError):  # outside a kernel no loop runs: each button draws once
            loop = asyncio.get_running_loop()
            self.drawing = loop.create_task(self.show_on(self.readers))

    def stop(self) -> None:
        self.show()
        if self.readers:
            self.readers.close()
        self.readers = None
        self.which.disabled = False
        self.said.value = STATES["stop"]

    def show(self) -> None:
        if self.readers and not (reads := self.readers.recent()).empty:
            self.picture.show(lambda: self.chart(reads))

    async def show_on(self, readers: Any) -> None:
        """Draw until these readers are stopped, and stop them when their time is over."""
        end = perf_counter() + self.seconds
        while perf_counter() < end:
            await asyncio.sleep(0.5)
            if self.readers is not readers:
                return
            self.show()
            await self.look(readers)
        self.stop()

    async def look(self, readers: Any) -> None:
        """See what has changed by itself."""


class _NodeButtons(_ServerButtons):
    """A button for each node, whose roles change by themselves."""

    label = "machines"
    names = ("start", "stop")

    def controls(self) -> list[ipywidgets.Widget]:
        self.does = ipywidgets.Dropdown(
            options=[name for name in STATES if name not in self.names],
            description="a button does",
            style={"description_width": "initial"},
        )
        return [self.row(self.names), self.does, self.row(f"node {n}" for n in range(1, NODES + 1))]

    def do(self, name: str) -> None:
        node = self.readers.server.nodes[int(name.removeprefix("node ")) - 1]
        getattr(node, self.does.value)()

    def state(self, name: str) -> str:
        return _roles(self.readers.server) if self.readers else STATES["stop"]

    async def look(self, readers: Any) -> None:
        roles = await asyncio.to_thread(_roles, readers.server)  # a frozen node takes its time
        if self.readers is readers and self.said.value != roles:
            self.said.value = roles


def _writes(df: pd.DataFrame) -> Axes:
    """Draw where the writes are that `kills.Writers.recent` has seen; the title counts."""
    now = df.iloc[-1]
    where = df[["at"]].assign(**{"not applied": df["acknowledged"] - df["applied"]})
    where[["in Redis", "lost"]] = df[["in Redis", "lost"]]
    lines = where.melt("at", var_name="where", value_name="writes")
    return charts.timeline(
        lines,
        "at",
        "writes",
        "where",
        title=", ".join(f"{now[name]:,.0f} {name}" for name in df.columns[1:]),
        roles={"not applied": "threads", "in Redis": "redis", "lost": "database"},
        steps=True,
        logy=False,
        xlim=(-kills.LAST, 0),
        ylim=(0, max(kills.BATCH, 1.1 * lines["writes"].max())),
        xlabel="seconds ago",
        ylabel="acknowledged writes",
    )


class _WorkerButtons(_ServerButtons):
    """The worker is killed, and the server goes on."""

    label = "writes wait in"
    names = ("start", "kill -9", "worker", "stop")
    chart = staticmethod(_writes)

    def do(self, name: str) -> None:
        (self.readers.kill_worker if name == "kill -9" else self.readers.start_worker)()

    def state(self, name: str) -> str:
        readers, worker = self.readers, "A worker works" if self.readers.works else "No worker"
        counts = f"{readers.acknowledged:,} acknowledged, {readers.refused:,} refused"
        return f"{worker}: {counts}, {readers.lost:,} lost."


def _shares(df: pd.DataFrame) -> Axes:
    """Draw what `live.Live.recent` has seen; the title says how it stands."""
    now = df.groupby("number", sort=False)["share"].last()
    return charts.timeline(
        df,
        "at",
        "share",
        "number",
        title=", ".join(f"{name} {share:.0%}" for name, share in now.items()),
        roles={"hit rate": "cache", "memory used": "threads"},
        steps=True,
        logy=False,
        xlim=(-live.LAST, 0),
        ylim=(0, 1.1),
        xlabel="seconds ago",
        ylabel="share",
    )


class _WatchButtons(_ServerButtons):
    """Buttons that put more on a server, and its numbers each second."""

    label = "policy"
    names = ("start", *live.MORE, "stop")
    chart = staticmethod(_shares)

    def controls(self) -> list[ipywidgets.Widget]:
        self.numbers = LiveRegion(quiet=True)
        self.numbers.layout.min_height = "5em"
        return [self.row(self.names), self.numbers]

    def do(self, name: str) -> None:
        self.readers.turn(name)

    def state(self, name: str) -> str:
        on = " and ".join(self.readers.on)
        return f"The server is in use{f', with {on} on top' if on else ''}."

    def show(self) -> None:
        super().show()
        if self.readers and (numbers := self.readers.numbers()):
            self.numbers.value = _table([numbers])


def _roles(server: Any) -> str:
    with ThreadPoolExecutor(NODES) as pool:
        roles = list(pool.map(lambda node: node.role, server.nodes))
    return ", ".join(f"node {at} {role}" for at, role in enumerate(roles, 1))


def _table(rows: list[dict]) -> str:
    """Return dictionaries of the same keys as an HTML table."""
    if not rows:
        return "<table></table>"
    lines = [_row("th", [name.replace("_", " ") for name in rows[0]])]
    lines += [_row("td", row.values()) for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _row(tag: str, cells: Iterable[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(one))}</{tag}>" for one in cells) + "</tr>"
