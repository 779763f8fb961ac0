"""What a page sends back: HTML that shows what it cost, a way to another page, an honest refusal;
and what a form brought, read within bounds."""

import asyncio
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from cachelab.apps.web import costs

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request
    from starlette.responses import Response

MOST_BYTES = 16_384  # of a form
ARRIVED = 5  # seconds that one may take
MOST_FIELDS = 20
FORM = "application/x-www-form-urlencoded"
COST = "<!-- what this response cost -->"  # where it goes: a text of ours, none that is escaped
COSTS = re.compile(
    r"(?P<commands>\d{1,6})-(?P<trips>\d{1,6})-(?P<loads>\d{1,6})-(?P<ms>\d{1,7}\.\d)", re.ASCII
)
BEFORE = "before"  # the cookie in which a form tells the next page what it cost


class Refused(Exception):
    """A request that is answered by a sentence.

    Args:
        status: 400 to 499, or 503.
        said: What is wrong with it, for its sender to read.
        headers: More of the answer.
    """

    def __init__(self, status: int, said: str, headers: Mapping[str, str] | None = None):
        super().__init__(said)
        self.status = status
        self.said = said
        self.headers = dict(headers or {})


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("cachelab.apps.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["price"] = lambda cents: f"{cents // 100}.{cents % 100:02d}"
    return made


def html(template: str, status: int = 200, /, **values: Any) -> "Response":
    """Return a page, on which stands what it cost until it was made."""
    from starlette.responses import HTMLResponse

    text = _templates().get_template(template).render(cost_here=COST, **values)
    cost = costs.here()
    shown = _templates().get_template("cost.html")
    strip = shown.render(cost=cost, before=values.get("before"))
    return HTMLResponse(text.replace(COST, strip), status)


def onward(path: str) -> "Response":
    """Return the way to another page of ours."""
    from starlette.responses import RedirectResponse

    return RedirectResponse(path, 303)


def told() -> str:
    """Return what was spent so far, for the cookie that the next page reads."""
    cost = costs.here()
    return f"{cost.commands}-{cost.trips}-{cost.loads}-{cost.ms:.1f}"


def before(request: "Request") -> dict[str, str] | None:
    """Return what the answer cost that led here, if one did."""
    found = COSTS.fullmatch(request.cookies.get(BEFORE, ""))
    return found and found.groupdict()


async def form(request: "Request") -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        Refused: It is no form, broke off, is too large or slow, is not UTF-8, has too many fields,
            one twice, or a NUL.
    """
    from starlette.requests import ClientDisconnect

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise Refused(415, f"A form must be sent as {FORM}.")
    body = bytearray()
    try:
        async with asyncio.timeout(ARRIVED):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise Refused(413, f"A form may have {MOST_BYTES} bytes at most.")
    except ClientDisconnect:
        raise Refused(400, "The form broke off.") from None
    except TimeoutError:
        raise Refused(408, f"The form did not arrive within {ARRIVED} seconds.") from None
    try:
        text = body.decode("ascii")  # what is not, is to be encoded by the browser
        pairs = parse_qsl(text, True, True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refused(400, "The form cannot be read.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Refused(400, "The form has a field twice.")
    if any("\0" in name + value for name, value in pairs):
        raise Refused(400, "The form has a NUL character in it.")
    return fields


def local(path: str) -> str:
    """Return a path if it is one of this site; else "/": nobody is sent elsewhere by a link.

    >>> local("/feed"), local("https://example.org/"), local("//example.org"), local("/\\\\x.org")
    ('/feed', '/', '/', '/')
    """
    try:
        parts = urlsplit(path)
    except ValueError:
        return "/"
    is_ours = re.match("/(?!/)", path) and not parts.netloc and not parts.scheme
    return path if is_ours and path.isascii() and path.isprintable() and "\\" not in path else "/"
