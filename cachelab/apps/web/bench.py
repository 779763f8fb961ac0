"""The page behind the shop: its switches, its visitors, and what the last minute cost."""

import asyncio
import os
from time import time
from typing import TYPE_CHECKING, Any

from cachelab.apps.web.answers import Refused
from cachelab.apps.web.board import merged
from cachelab.apps.web.origin import VISITORS
from cachelab.apps.web.pages import Visit, changing, reading

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LOOKS, PAUSE = 200, 0.05  # at the server, with so many seconds between, until it is as switched


@reading
async def page(here: Visit) -> "Response":
    """Show the switches, and what the last minute cost."""
    state = here.request.app.state
    return here.html(
        "bench.html",
        switches=await asyncio.to_thread(state.board.switches),
        is_up=await here.shop.is_up(),
        settings=here.settings,
        visitors=len(VISITORS),
        minute=await _minute(state),
    )


async def seconds(request: "Request") -> "Response":
    """Return the last minute as JSON."""
    from starlette.responses import JSONResponse

    return JSONResponse(await _minute(request.app.state))


async def healthy(request: "Request") -> "Response":
    """Say that this process answers; it does so without Redis, too."""
    from starlette.responses import PlainTextResponse

    return PlainTextResponse("ok\n")


@changing
async def switch(here: Visit) -> "Response":
    """Set a switch, for all workers."""
    state = here.request.app.state
    name = here.choice("switch", "cache", "slow", "redis", "visitors")
    is_on = here.choice("to", "on", "off") == "on"
    changes: dict[str, Any] = {name: is_on}
    if name == "redis" and not here.settings.has_server:
        raise Refused(403, "This Redis server was not started by the demo: it is left alone.")
    if name == "redis":
        changes["redis_since"] = time()
    if name == "visitors":
        changes = {name: str(os.getpid()) if is_on else ""}
    state.apply(await asyncio.to_thread(lambda: state.board.switch(**changes)))
    if name == "redis":
        for _ in range(LOOKS):
            if await here.shop.is_up() == is_on:
                break
            await asyncio.sleep(PAUSE)
    return here.onward("/bench")


async def _minute(state: Any) -> list[dict[str, Any]]:
    return merged(await asyncio.to_thread(state.board.told), int(time()))
