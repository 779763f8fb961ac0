"""The application: routes, what every response carries, what is told of errors, and the clock."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cachelab._extras import need
from cachelab.apps.web import answers, bench, costs, pages
from cachelab.apps.web.answers import Refused
from cachelab.apps.web.board import EVERY, Board, Minute, Switches
from cachelab.apps.web.settings import VARIABLE, Settings
from cachelab.apps.web.shop import Shop, Viewer
from cachelab.apps.web.traffic import Traffic
from cachelab.errors import CachelabError, RedisUnavailable

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("cachelab")

HEADERS = {  # of every response
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PRIVATE = "no-store"  # pages are for one viewer
STATIC = "max-age=300"
UNCOUNTED = ("/static/", "/bench", "/health")


def make_application(settings: Settings) -> "Starlette":
    """Return the demo as an ASGI application.

    Its tables are there: `serving.prepared` makes and fills them.

    Args:
        settings: What it is told.

    Raises:
        MissingExtra: The extra "web" or "database" is not installed.
    """
    for extra in ("web", "database"):
        need("The demo", extra)
    from redis import RedisError
    from sqlalchemy.exc import SQLAlchemyError
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    made = Starlette(
        routes=_routes(),
        lifespan=_alive,
        middleware=[
            Middleware(_Measured),
            Middleware(TrustedHostMiddleware, allowed_hosts=settings.hosts, www_redirect=False),
        ],
        exception_handlers={
            Refused: _refused,
            CachelabError: _failed,
            RedisError: _refuses,
            SQLAlchemyError: _failed,
            404: _unknown,
            405: _unknown,
        },
    )
    made.router.redirect_slashes = False
    made.state.settings = settings
    made.state.shop = Shop(settings)
    made.state.minute = Minute()
    made.state.apply = lambda switches: _apply(made, switches)
    return made


def from_environment() -> "Starlette":
    """Return the demo as a worker process builds it, from what its parent has told."""
    return make_application(Settings.read(os.environ[VARIABLE]))


def _routes() -> list[Any]:
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    read = {
        "/": pages.shelf,
        "/product/{id}": pages.product,
        "/cart": pages.cart,
        "/trending": pages.trending,
        "/feed": pages.feed,
        "/people/{name}": pages.person,
        "/login": pages.login_page,
        "/bench": bench.page,
        "/bench/seconds": bench.seconds,
        "/health": bench.healthy,
    }
    changed = {
        "/cart": pages.add,
        "/feed": pages.write,
        "/login": pages.login,
        "/logout": pages.logout,
        "/bench": bench.switch,
    }
    files = StaticFiles(directory=Path(__file__).with_name("static"))
    methods = {path: (["GET"], page) for path, page in read.items()}
    return [
        *(Route(path, page, methods=names) for path, (names, page) in methods.items()),
        *(Route(path, page, methods=["POST"]) for path, page in changed.items()),
        Mount("/static", files),
    ]


@asynccontextmanager
async def _alive(made: "Starlette") -> AsyncIterator[None]:
    """Heed the switches, and tell what the last minute cost, for as long as it is served."""
    state = made.state
    state.board = Board(state.settings.database_url)
    state.traffic = Traffic(made)
    state.changes = 0
    _apply(made, await asyncio.to_thread(state.board.switches))
    over = asyncio.Event()
    clock = asyncio.create_task(_tick(made, over))
    try:
        yield
    finally:
        over.set()
        await clock  # to its end: a thread may be at the database for it
        await state.traffic.stop()
        await state.shop.close()
        state.board.close()


async def _tick(made: "Starlette", over: asyncio.Event) -> None:
    from sqlalchemy.exc import SQLAlchemyError

    state, told, is_well = made.state, None, True
    while not over.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), EVERY)
        try:
            if (rows := state.minute.rows()) != told:
                await asyncio.to_thread(state.board.tell, rows)
                told = rows
            state.shop.is_away = not await state.shop.is_up()
            if state.traffic.is_over:
                await asyncio.to_thread(lambda: state.board.switch(visitors=""))
            _apply(made, await asyncio.to_thread(state.board.switches))
            is_well = True
        except SQLAlchemyError as error:  # the pages say so themselves
            if is_well:
                log.error("the demo cannot read its switches: %s", type(error).__name__)
            is_well = False


def _apply(made: "Starlette", switches: Switches) -> None:
    """Be as the switches say."""
    state = made.state
    if switches.changes < state.changes:
        return
    state.changes = switches.changes
    state.shop.is_cached = switches.cache
    state.shop.origin.latency = state.settings.slow if switches.slow else state.settings.latency
    state.traffic.run(switches.visitors == str(os.getpid()))


class _Measured:
    """Counts what a response costs, gives it the headers that all have, and answers for faults."""

    def __init__(self, app: "ASGIApp"):
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cost, status = costs.begin(), 0
        is_counted = not scope["path"].startswith(UNCOUNTED)

        async def told(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                cost.ended = perf_counter()
                status = message["status"]
                kept = STATIC if scope["path"].startswith("/static/") else PRIVATE
                more = HEADERS | cost.headers | {"Cache-Control": kept}
                pairs = [(name.lower().encode(), text.encode()) for name, text in more.items()]
                message["headers"] = [*message["headers"], *pairs]
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception:
            log.exception("the demo failed at %r", scope["path"])
            if not status:
                await _broken(scope)(scope, receive, told)
        finally:
            if is_counted:
                scope["app"].state.minute.add(cost, status)


def _said(request: "Request", status: int, title: str, said: str) -> "Response":
    """Return a page with a sentence, for whoever asked; it asks neither Redis nor the database."""
    words = {"title": title, "said": said, "status": status}
    viewer = getattr(request.state, "viewer", Viewer(""))
    return answers.html(
        "message.html", status, viewer=viewer, before=None, is_away=False, path="", **words
    )


async def _refused(request: "Request", error: Exception) -> "Response":
    assert isinstance(error, Refused)
    titles = {403: "Not allowed", 404: "Not found", 429: "Too many", 503: "Not now"}
    title = titles.get(error.status, "That cannot be done")
    response = _said(request, error.status, title, error.said)
    response.headers.update(error.headers)
    return response


async def _failed(request: "Request", error: Exception) -> "Response":
    if isinstance(error, RedisUnavailable):
        return await _refused(request, Refused(503, pages.AWAY, {"Retry-After": "5"}))
    is_busy = isinstance(error, CachelabError)
    said = "The shop is too busy now." if is_busy else "The database does not answer."
    return await _refused(request, Refused(503, said, {"Retry-After": "5"}))


async def _refuses(request: "Request", error: Exception) -> "Response":
    log.error("Redis refuses what %r asks for: %s", request.url.path, error)
    return await _refused(request, Refused(503, pages.REFUSES, {"Retry-After": "5"}))


async def _unknown(request: "Request", error: Exception) -> "Response":
    if getattr(error, "status_code", 404) == 405:
        response = _said(request, 405, "Not so", "This address is not for that method.")
        response.headers.update(getattr(error, "headers", None) or {})
        return response
    return _said(request, 404, "Not found", "There is no such page.")


def _broken(scope: "Scope") -> "Response":
    from starlette.requests import Request

    said = "Something went wrong here; the log says what."
    return _said(Request(scope), 500, "A fault of ours", said)
