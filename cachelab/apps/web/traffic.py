"""Simulated visitors: they ask the application as browsers do, with cookies and forms."""

import asyncio
import random
import re
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cachelab.apps.web.origin import SAYINGS, SHELF, VISITORS, products

if TYPE_CHECKING:
    from starlette.applications import Starlette

THINKS = 0.1, 0.5  # seconds between two pages, at least and at most
LEAVES = 300.0  # seconds after which the visitors go home
TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')
REQUEST = re.compile(r'name="request" value="([0-9a-f]{32})"')


class Browser:
    """What a visitor has: cookies, and a way to the application, which is called in this process.

    Args:
        app: The application.
        name: Whose address it has.
    """

    def __init__(self, app: "Starlette", name: str):
        self._app = app
        self._name = name
        self._cookies: dict[str, str] = {}
        self._host = app.state.settings.hosts[0]

    async def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        """Return status and text of a page, or of the one that a form leads to."""
        status, headers, text = await self._sent(path, form)
        if status == 303:
            return await self.ask(headers["location"])
        return status, text

    async def _sent(
        self, path: str, form: dict[str, str] | None
    ) -> tuple[int, dict[str, str], str]:
        body = urlencode(form or {}).encode()
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        headers = {
            "host": self._host,
            "cookie": cookies,
            "user-agent": self._name,
            "content-type": "application/x-www-form-urlencoded",
        }
        plain, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET" if form is None else "POST",
            "scheme": "http",
            "path": plain,
            "raw_path": plain.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": (self._name, 0),
            "server": (self._host, 80),
        }
        came: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            came.append(message)

        await self._app(scope, receive, send)
        start, *parts = came
        found = {}
        for name, value in start["headers"]:
            if name == b"set-cookie":
                self._keep(value.decode())
            found[name.decode()] = value.decode()
        return start["status"], found, b"".join(part.get("body", b"") for part in parts).decode()

    def _keep(self, text: str) -> None:
        for name, one in SimpleCookie(text).items():
            self._cookies[name] = one.value
            if one["max-age"] == "0":
                self._cookies.pop(name)


class Traffic:
    """Twenty visitors, who browse, look, buy and write until they are stopped.

    Args:
        app: The application that they visit.
    """

    def __init__(self, app: "Starlette"):
        self._app = app
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_over(self) -> bool:
        """Whether visitors came, and all have gone home."""
        return bool(self._tasks) and all(task.done() for task in self._tasks)

    def run(self, is_on: bool) -> None:
        """Let the visitors come, or go, if they are not there, or are, already."""
        if is_on and not self._tasks:
            self._tasks = [asyncio.create_task(self._visit(name)) for name in VISITORS]
        elif not is_on and self._tasks:
            for task in self._tasks:
                task.cancel()
            self._tasks = []

    async def stop(self) -> None:
        """Let the visitors go, and wait until they are gone."""
        tasks = self._tasks
        self.run(False)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _visit(self, name: str) -> None:
        chance = random.Random(name)
        browser = Browser(self._app, name)
        ids = list(products())
        await self._login(browser, name)
        clock = asyncio.get_running_loop().time
        end = clock() + LEAVES
        while clock() < end:
            await asyncio.sleep(chance.uniform(*THINKS))
            step = chance.random()
            if step < 0.3:
                await browser.ask(f"/?page={chance.randint(1, len(ids) // SHELF)}")
            elif step < 0.7:
                id = ids[min(int(chance.paretovariate(0.7)) - 1, len(ids) - 1)]  # few are popular
                _, text = await browser.ask(f"/product/{id}")
                if chance.random() < 0.2:
                    await self._buy(browser, id, text)
            elif step < 0.9:
                _, text = await browser.ask("/feed")
                if "Log in</h1>" in text:  # Redis came back without its session
                    await self._login(browser, name)
                elif chance.random() < 0.1:
                    await self._send(browser, "/feed", text, text=chance.choice(SAYINGS))
            else:
                await browser.ask("/trending")

    async def _login(self, browser: Browser, name: str) -> None:
        _, text = await browser.ask("/login")
        if token := TOKEN.search(text):
            await browser.ask("/login", {"token": token[1], "name": name, "next": "/"})

    async def _buy(self, browser: Browser, id: str, text: str) -> None:
        fields = {"item": id, "quantity": "1", "change": "add"}
        await self._send(browser, "/cart", text, **fields)

    async def _send(self, browser: Browser, path: str, page: str, **fields: str) -> None:
        """Send a form of a page, with what the page gave to go with it."""
        token, request = TOKEN.search(page), REQUEST.search(page)
        if token and request:
            await browser.ask(path, {"token": token[1], "request": request[1], **fields})
