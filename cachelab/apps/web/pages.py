"""The pages: each reads what it was asked, calls the shop, and shows what came of it."""

import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cachelab.apps.web import answers
from cachelab.apps.web.answers import Refused
from cachelab.apps.web.origin import PEOPLE, SHELF, VISITORS, products
from cachelab.apps.web.settings import Settings
from cachelab.apps.web.shop import (
    HALF_LIFE,
    LOGIN_WINDOW,
    LOGINS,
    WRITE_WINDOW,
    WRITES,
    Shop,
    Viewer,
)

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST_PIECES = 99  # of a product, in one addition
MOST_LETTERS = 280  # of a post
LAST_SHELF = -(-len(products()) // SHELF)
NAMES = frozenset(PEOPLE + VISITORS)
IDS = re.compile(r"[a-z-]{1,40}", re.ASCII)
REQUESTS = re.compile(r"[0-9a-f]{32}", re.ASCII)
WEEK = 7 * 86_400


@dataclass
class Visit:
    """One request, who makes it, and how to answer.

    Attributes:
        request: As it came.
        shop: What the pages show.
        settings: What the demo was told.
        viewer: Who asks.
        fields: What the form brought; {} of a page that is only read.
    """

    request: "Request"
    shop: Shop
    settings: Settings
    viewer: Viewer
    fields: dict[str, str] = field(default_factory=dict)

    def html(self, template: str, /, **values: Any) -> "Response":
        """Return a page."""
        told: dict[str, Any] = {"viewer": self.viewer, "before": answers.before(self.request)}
        told |= {"path": self.request.url.path, "is_away": self._is_away}
        response = answers.html(template, **told, **values)
        if told["before"]:
            response.delete_cookie(answers.BEFORE, **self._guarded)
        return self.known(response)

    @property
    def _guarded(self) -> dict[str, Any]:
        """How each cookie is kept from scripts, from other sites, and from who listens."""
        return {"httponly": True, "samesite": "lax", "secure": self.settings.is_https}

    @property
    def _is_away(self) -> bool:
        return self.viewer.is_unknown or self.shop.is_away

    def known(self, response: "Response") -> "Response":
        """Give the browser the id of a viewer who has it not yet."""
        if self.viewer.is_new:
            name, id = self.settings.cookie, self.viewer.id
            response.set_cookie(name, id, max_age=WEEK, **self._guarded)
        return response

    def onward(self, path: str) -> "Response":
        """Return the way to another page; what it cost to come there is told on that page."""
        response = answers.onward(path)
        told = answers.told()
        response.set_cookie(answers.BEFORE, told, max_age=10, **self._guarded)
        return self.known(response)

    def user(self) -> str:
        """Return who is logged in; refuse who is not, or of whom that is not known."""
        if self.viewer.user is None:
            raise Refused(403, "Log in first, then send it again: your session has ended.")
        return self.viewer.user

    def choice(self, name: str, *choices: str) -> str:
        """Return what was chosen in a form."""
        if (value := self.fields.get(name, "")) not in choices:
            raise Refused(400, f"The field {name!r} must be one of {', '.join(choices)}.")
        return value

    def number(self, name: str, least: int, most: int) -> int:
        """Return a whole number of a form, within bounds."""
        value = self.fields.get(name, "")
        if not re.fullmatch(r"\d{1,4}", value, re.ASCII) or not least <= int(value) <= most:
            raise Refused(400, f"The field {name!r} must be a whole number of {least} to {most}.")
        return int(value)

    def name(self) -> str:
        """Return what a form's request is called, by which it is known when it is sent twice."""
        if not REQUESTS.fullmatch(name := self.fields.get("request", "")):
            raise Refused(400, "The field 'request' must be what the page gave, 32 hex digits.")
        return name


async def visit(request: "Request") -> Visit:
    """Return a request with its viewer."""
    state = request.app.state
    brought = request.cookies.get(state.settings.cookie)
    viewer = await state.shop.viewer(brought)
    request.state.viewer = viewer
    return Visit(request, state.shop, state.settings, viewer)


async def posted(request: "Request") -> Visit:
    """Return a request with what its form brought.

    Raises:
        Refused: It cannot be read, or does not come from a page that we gave to this browser.
    """
    fields = await answers.form(request)
    state = request.app.state
    viewer = Viewer(request.cookies.get(state.settings.cookie, ""))
    token = fields.pop("token", "")
    if not viewer.id or not compare_digest(viewer.token.encode(), token.encode()):
        raise Refused(
            403,
            "The form does not come from a page of this site that your browser has open, or you "
            "have logged in or out since: open the page anew, and send it again.",
        )
    viewer = request.state.viewer = await state.shop.viewer(viewer.id)
    return Visit(request, state.shop, state.settings, viewer, fields)


def reading(page: Callable[[Visit], Awaitable["Response"]]) -> Callable[..., Any]:
    """Make a route of a page that is only read."""

    async def answer(request: "Request") -> "Response":
        return await page(await visit(request))

    return answer


def changing(page: Callable[[Visit], Awaitable["Response"]]) -> Callable[..., Any]:
    """Make a route of what a form of ours does."""

    async def answer(request: "Request") -> "Response":
        return await page(await posted(request))

    return answer


# The shop


@reading
async def shelf(here: Visit) -> "Response":
    """Show a page of the shop."""
    text = here.request.query_params.get("page", "1")
    number = int(text) if re.fullmatch(r"\d{1,3}", text, re.ASCII) else 0
    if not 1 <= number <= LAST_SHELF:
        raise Refused(404, f"The shop has pages 1 to {LAST_SHELF}.")
    items = await here.shop.shelf(number)
    return here.html("shelf.html", items=items, number=number, last=LAST_SHELF)


@reading
async def product(here: Visit) -> "Response":
    """Show a product."""
    id = here.request.path_params["id"]
    found = await here.shop.product(id) if IDS.fullmatch(id) else None
    if found is None:
        raise Refused(404, "There is no such product.")
    name = secrets.token_hex(16)
    return here.html("product.html", id=id, product=found, name=name, most=MOST_PIECES)


@reading
async def cart(here: Visit) -> "Response":
    """Show what is in the cart."""
    _is_known(here)
    lines = await here.shop.cart(here.viewer)
    total = sum(number * product["price"] for _, number, product in lines)
    return here.html("cart.html", lines=lines, total=total)


@changing
async def add(here: Visit) -> "Response":
    """Put a product into the cart, or say how many of it are to be there."""
    _is_known(here)
    change = here.choice("change", "add", "put")
    item = here.fields.get("item", "")
    if not IDS.fullmatch(item) or item not in await here.shop.products([item]):
        raise Refused(404, "There is no such product.")
    if change == "put":
        await here.shop.put(here.viewer, item, here.number("quantity", 0, MOST_PIECES))
        return here.onward("/cart")
    quantity = here.number("quantity", 1, MOST_PIECES)
    await here.shop.add(here.viewer, item, quantity, here.name())
    return here.onward("/cart")


@reading
async def trending(here: Visit) -> "Response":
    """Show what is looked at most of late."""
    trends = await here.shop.trends()
    return here.html("trending.html", trends=trends, half_life=HALF_LIFE)


# People


@reading
async def feed(here: Visit) -> "Response":
    """Show what those write whom the viewer follows."""
    if here.viewer.user is None:
        _is_known(here)
        return here.onward("/login?next=/feed")
    told: dict[str, Any] = {"most": MOST_LETTERS, "writes": WRITES, "window": WRITE_WINDOW}
    told |= {"request": secrets.token_hex(16)}
    return await _posts(here, here.viewer.user, here.shop.feed, "feed.html", **told)


@reading
async def person(here: Visit) -> "Response":
    """Show what somebody has written."""
    name = here.request.path_params["name"]
    if name not in NAMES:
        raise Refused(404, "There is nobody of this name.")
    return await _posts(here, name, here.shop.wall, "person.html")


@changing
async def write(here: Visit) -> "Response":
    """Write a post."""
    _is_known(here)
    user = here.user()
    text = " ".join(here.fields.get("text", "").split())
    if not 1 <= len(text) <= MOST_LETTERS:
        raise Refused(400, f"A post has 1 to {MOST_LETTERS} characters.")
    name = here.name()
    decision = await here.shop.may_write(user)
    if not decision.is_allowed:
        raise Refused(
            429,
            f"{WRITES} posts within {WRITE_WINDOW:.0f} seconds are allowed: the next one in "
            f"{decision.retry_after:.1f} s.",
            decision.headers,
        )
    await here.shop.write(user, text, name)
    return here.onward("/feed")


async def _posts(here: Visit, name: str, page: Any, template: str, **values: Any) -> "Response":
    cursor = here.request.query_params.get("after")
    try:
        posts, further = await page(name, cursor)
    except ValueError:
        raise Refused(400, "There is no such page of posts.") from None
    older = further and f"{here.request.url.path}?after={quote(further)}"
    return here.html(template, name=name, posts=posts, older=older, **values)


# Who it is


@reading
async def login_page(here: Visit) -> "Response":
    """Ask who it is, or tell."""
    target = answers.local(here.request.query_params.get("next", "/"))
    devices = [] if here.viewer.user is None else await here.shop.devices(here.viewer.user)
    return here.html("login.html", people=PEOPLE, target=target, devices=devices)


@changing
async def login(here: Visit) -> "Response":
    """Log in."""
    _is_known(here)
    name = here.fields.get("name", "").strip().lower()
    address = here.request.client.host if here.request.client else "?"
    decision = await here.shop.may_login(address, name if name in NAMES else "?")
    if not decision.is_allowed:
        raise Refused(
            429,
            f"{LOGINS} log-ins of a name within {LOGIN_WINDOW:.0f} seconds are allowed: the next "
            f"one in {decision.retry_after:.0f} s.",
            decision.headers,
        )
    if name not in NAMES:
        raise Refused(400, f"Nobody here has this name. These have: {', '.join(PEOPLE)}.")
    device = here.request.headers.get("user-agent", "")[:120]
    here.viewer = await here.shop.login(name, here.viewer, device)
    return here.onward(answers.local(here.fields.get("next", "/")))


@changing
async def logout(here: Visit) -> "Response":
    """Log out, here or everywhere."""
    _is_known(here)
    where = here.choice("where", "here", "everywhere")
    await here.shop.logout(here.viewer, where == "everywhere")
    here.viewer = await here.shop.viewer(None)
    return here.onward("/")


def _is_known(here: Visit) -> None:
    """Refuse who cannot be known now: what would be a guest's must not be a user's."""
    if here.viewer.is_unknown:
        raise Refused(503, AWAY, {"Retry-After": "5"})


ALONE = "it alone knows who you are, what is in your cart and what trends."
AWAY = f"Redis does not answer, and {ALONE}"
REFUSES = f"Redis refuses: it may be full, which the log says. And {ALONE}"
