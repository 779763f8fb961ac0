"""What each page of the demo costs: cold, warm, and without a cache, asked for as browsers do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from tempfile import TemporaryDirectory
from time import perf_counter
from urllib.parse import urlencode, urlsplit

import pandas as pd
import redis

from cachelab import _check
from cachelab.apps.web import serving
from cachelab.apps.web.settings import Settings
from cachelab.clients import connect
from cachelab.database import UserDatabase
from cachelab.server import Server

PAGES = {
    "shop": "/",
    "product": "/product/oak-desk-lamp",
    "cart": "/cart",
    "feed": "/feed",
    "person": "/people/ada",
    "trending": "/trending",
}
BOUGHT = ("oak-desk-lamp", "oak-teapot", "oak-clock", "oak-tray", "oak-stool")
STATES = ("cold", "warm", "no cache")
COSTS = re.compile(r'desc="(\d+) commands.*desc="(\d+) loads"')
HIDDEN = re.compile(r'type="hidden" name="(token|request)" value="(\w+)"')


def measure(rounds: int = 9, latency: float = 0.02) -> pd.DataFrame:
    """Ask for each page of the demo, by a user with five products in the cart.

    The demo is served by a thread of this process, with a Redis server and a SQLite file of its
    own; the page is asked for over one connection. In each round every page is asked for cold (all
    that is cached has been dropped), warm (it has been asked for just before), and without a cache.

    Args:
        rounds: How often.
        latency: Seconds that the database takes for an answer.

    Returns:
        The tidy frame (page, state, round, ms, commands, loads): milliseconds until the page is
        there, commands that Redis got for it, questions to the database. state: "cold", "warm",
        "no cache".

    Raises:
        ValueError: An argument is out of its range.
    """
    rounds = _check.whole("rounds", rounds, least=1)
    rows = []
    with _shop(latency) as (client, prefix, url), _Reader(url) as reader:
        reader.log_in("ada")
        for id in BOUGHT:
            reader.buy(id)
        for path in PAGES.values():
            reader.cost(path)  # connections are opened, templates are read
        for number in range(1, rounds + 1):
            for state in STATES:
                reader.switch("cache", "off" if state == "no cache" else "on")
                for page, path in PAGES.items():
                    if state == "cold":
                        _drop(client, prefix)
                    elif state == "warm":
                        reader.cost(path)
                    rows.append((page, state, number, *reader.cost(path)))
    return pd.DataFrame(rows, columns=["page", "state", "round", "ms", "commands", "loads"])


@contextmanager
def _shop(latency: float) -> Iterator[tuple[redis.Redis, str, str]]:
    """Serve the demo; yield a client of its server, the prefix of its keys, and where it is."""
    with Server() as server, TemporaryDirectory() as folder:
        with UserDatabase(f"sqlite:///{folder}/demo.db", latency=0) as database:
            settings = Settings(server.url, database.url, latency=latency, ttl=3600, timeout=5)
            with serving.serving(settings) as url:
                yield connect(server.url, timeout=5), settings.prefix, url


def _drop(client: redis.Redis, prefix: str) -> None:
    """Drop all that the demo has cached: session, cart and counts stay."""
    for key in client.scan_iter(f"{prefix}cached:*", count=1000):
        client.unlink(key)


class _Reader:
    """Whoever asks for the pages, over one connection."""

    def __init__(self, url: str):
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._cookies: dict[str, str] = {}

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def log_in(self, name: str) -> None:
        self._send("/login", "/login", {"name": name, "next": "/"})

    def buy(self, id: str) -> None:
        self._send(f"/product/{id}", "/cart", {"item": id, "quantity": "1", "change": "add"})

    def switch(self, name: str, to: str) -> None:
        self._send("/bench", "/bench", {"switch": name, "to": to})

    def cost(self, path: str) -> tuple[float, int, int]:
        """Return the milliseconds, the commands and the loads of a page."""
        began = perf_counter()
        headers, _ = self._ask(path)
        ms = 1000 * (perf_counter() - began)
        ((commands, loads),) = COSTS.findall(headers["server-timing"])
        return ms, int(commands), int(loads)

    def _send(self, page: str, path: str, form: dict[str, str]) -> None:
        """Send the form of a page, with what the page gave to go with it."""
        _, text = self._ask(page)
        self._ask(path, dict(HIDDEN.findall(text)) | form)

    def _ask(self, path: str, form: dict[str, str] | None = None) -> tuple[dict[str, str], str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        headers = {"Cookie": cookies}
        if form is None:
            self._connection.request("GET", path, headers=headers)
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            self._connection.request("POST", path, urlencode(form), headers)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status >= 400:
            raise RuntimeError(f"{path} answers {answer.status}: {text}")
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                self._cookies |= {one.key: one.value for one in SimpleCookie(value).values()}
        return {name.lower(): value for name, value in answer.getheaders()}, text
