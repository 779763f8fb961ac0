"""An API's responses: kept under a key that two processes agree on and no two users share.

The key is a hash of all that a response may depend on: version, tenant, method, path, parameters
sorted by name, and the headers that were chosen. The function that fetches sees these and no
others, so it cannot answer one user with what is kept for all. `hash()` differs in each process; a
key without the tenant serves one customer's data to another.

Readers who miss at once make one request, by the cache-aside below. An error reaches them and is
not kept, nor is what the origin calls private or sends with a cookie: that reaches nobody but the
reader whose request it was.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import redis
import redis.asyncio

from cachelab import _check
from cachelab.apps.calls import Calls
from cachelab.cache.aside import AsyncCacheAside, CacheAside
from cachelab.cache.flights import to_its_end
from cachelab.cache.stats import Stats

Pairs = tuple[tuple[str, str], ...]
Params = Mapping[str, Any] | Iterable[tuple[str, Any]]

UNSHARED = {"private", "no-store", "no-cache"}  # of Cache-Control
OF_304 = {"cache-control", "content-location", "date", "etag", "expires", "vary"}  # RFC 9110
TAGS = re.compile(r'"[^"]*"')


@dataclass(frozen=True, slots=True)
class Request:
    """All that a response may depend on, in one form: equal requests have equal keys.

    Attributes:
        method: GET or HEAD.
        path: Without parameters.
        params: Names and values, sorted by name; of one name in the order they were given.
        tenant: Whose data; "" for everybody's.
        headers: The chosen ones, by names in lower case.
    """

    method: str
    path: str
    params: Pairs
    tenant: str
    headers: Pairs = field(repr=False)  # a token may be among them


@dataclass(frozen=True, slots=True)
class Response:
    """What an origin answers, and what a reader gets.

    Attributes:
        status: 200, or what it is; 304 for who has it already.
        body: The text.
        headers: Names to values; a reader's names are in lower case, with an ``etag``.
    """

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_shared(self) -> bool:
        """Whether more than one reader may have it: no cookie, and Cache-Control allows it."""
        told = self.headers.get("cache-control", "").lower()
        words = {word.partition("=")[0].strip() for word in told.split(",")}
        return not (words & UNSHARED or {"set-cookie"} & set(self.headers))

    @property
    def is_kept(self) -> bool:
        """Whether it is cached: a good one that is shared and depends on nothing else."""
        return self.status == 200 and self.is_shared and self.headers.get("vary", "").strip() != "*"


class _NotKept(Exception):
    """A response on its way past the cache, and the request of the reader who fetched it."""

    def __init__(self, response: Response, request: Request):
        super().__init__(response, request)
        self.response = response
        self.request = request


_asked: ContextVar[Request] = ContextVar("_asked")  # by the reader in whose thread or task we are


class _Core:
    """What both classes do: coroutines, which never suspend over a cache that blocks."""

    _cache: CacheAside[dict[str, Any]] | AsyncCacheAside[dict[str, Any]]

    def __init__(
        self, calls: Calls, fetch: Callable[[Request], Any], vary: Iterable[str], version: str
    ):
        calls.check_function("fetch", fetch)
        self._calls = calls
        self._fetch = fetch
        names = (_check.identity("one of vary", name) for name in _check.several("vary", vary))
        self._vary = {name.lower() for name in names}
        self._version = _check.text("version", version)

    @property
    def stats(self) -> Stats:
        """The counts so far, as a `Stats` that does not change any more."""
        return self._cache.stats

    async def get(
        self,
        path: str,
        tenant: str,
        params: Params = (),
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        if_none_match: str | None = None,
    ) -> Response:
        """Return the response to a request, from the cache or the origin.

        Args:
            path: Begins with "/", without parameters.
            tenant: Whose data it is: whoever is asked for a token, user or customer. "" for data
                that is everybody's.
            params: Names to texts, whole numbers or lists of them; or pairs.
            headers: Those of the request: of these the ones in vary count.
            method: GET or HEAD.
            if_none_match: The header of that name, as the client sent it.

        Returns:
            The response; with status 304 and no body if the client has it already.

        Raises:
            Exception: Whatever fetch raises.
        """
        request = self._request(path, tenant, params, headers, method)
        if if_none_match is not None:
            _check.text("if_none_match", if_none_match)
        response = await self._response(request)
        etag = response.headers.get("etag")
        if response.status == 200 and etag and _has(if_none_match, etag):
            kept = {name: response.headers[name] for name in response.headers if name in OF_304}
            return Response(304, "", kept)
        return response

    async def invalidate(
        self,
        path: str,
        tenant: str,
        params: Params = (),
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> None:
        """Forget the response to one request; raises as `CacheAside.invalidate` does."""
        key = self._key(self._request(path, tenant, params, headers, method))
        await self._calls.given(self._cache.invalidate, key)

    async def _response(self, request: Request) -> Response:
        token = _asked.set(request)
        try:
            kept = await self._calls.given(self._cache.get, self._key(request))
            return Response(**kept)
        except _NotKept as past:
            if past.request is request or past.response.is_shared:
                return past.response
        finally:
            _asked.reset(token)
        return _checked(await self._calls.given(self._fetch, request), request)

    def _kept(self, response: Any, request: Request) -> dict[str, Any]:
        """Return what is cached of what was fetched, or have it pass by."""
        checked = _checked(response, request)
        if not checked.is_kept:
            raise _NotKept(checked, request)
        return {"status": 200, "body": checked.body, "headers": dict(checked.headers)}

    def _request(
        self,
        path: str,
        tenant: str,
        params: Params,
        headers: Mapping[str, str] | None,
        method: str,
    ) -> Request:
        if not _check.text("path", path).startswith("/") or set("?#") & set(path):
            raise ValueError(f'path must begin with "/" and hold no "?" or "#", not {path!r:.80}')
        return Request(
            _check.choice("method", _check.text("method", method).upper(), ("GET", "HEAD")),
            path,
            _params(params),
            _check.text("tenant", tenant),
            tuple(
                sorted(pair for pair in _headers(headers or {}).items() if pair[0] in self._vary)
            ),
        )

    def _key(self, request: Request) -> str:
        """Return the id of a request: a hash that every process and every release agrees on."""
        parts = (request.tenant, request.method, request.path, request.params, request.headers)
        return hashlib.sha256(json.dumps([self._version, *parts]).encode()).hexdigest()


class AsyncResponses(_Core):
    """Responses of an API, cached for asyncio. Without Redis they come from the origin.

    What an origin always calls private is better asked for elsewhere: its readers wait here to see
    whether another's response is theirs too.

    Args:
        client: What `connect_async` returns.
        fetch: An async function of a Request that returns the origin's Response. It should time
            out by itself.
        ttl: Seconds that a response is kept at most; what the origin says of it shortens nothing.
        vary: Names of the headers that a response depends on, such as Accept-Language.
        version: Of the API and of what is kept: with another nothing that is there is read.
        prefix: What every key starts with.
        max_loads: Requests to the origin at the same time; more of them queue.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        fetch: Callable[[Request], Awaitable[Response]],
        ttl: float = 300,
        vary: Iterable[str] = (),
        version: str = "1",
        prefix: str = "response:",
        max_loads: int = 20,
    ):
        super().__init__(Calls(client, "async"), fetch, vary, version)

        async def load(_: str) -> dict[str, Any]:
            request = _asked.get()
            return self._kept(await fetch(request), request)

        self._cache = AsyncCacheAside(client, load, ttl, prefix=prefix, max_loads=max_loads)


class _Blocking(_Core):
    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        fetch: Callable[[Request], Response],
        ttl: float,
        vary: Iterable[str],
        version: str,
        prefix: str,
        max_loads: int,
    ):
        super().__init__(Calls(client, "sync"), fetch, vary, version)

        def load(_: str) -> dict[str, Any]:
            request = _asked.get()
            return self._kept(fetch(request), request)

        self._cache = CacheAside(client, load, ttl, prefix=prefix, max_loads=max_loads)


class Responses:
    """The twin of `AsyncResponses` that blocks, with a plain function and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        fetch: Callable[[Request], Response],
        ttl: float = 300,
        vary: Iterable[str] = (),
        version: str = "1",
        prefix: str = "response:",
        max_loads: int = 20,
    ):
        self._core = _Blocking(client, fetch, ttl, vary, version, prefix, max_loads)

    def get(
        self,
        path: str,
        tenant: str,
        params: Params = (),
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        if_none_match: str | None = None,
    ) -> Response:
        """See `AsyncResponses.get`."""
        return to_its_end(self._core.get(path, tenant, params, headers, method, if_none_match))

    def invalidate(
        self,
        path: str,
        tenant: str,
        params: Params = (),
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> None:
        """See `AsyncResponses.invalidate`."""
        to_its_end(self._core.invalidate(path, tenant, params, headers, method))

    @property
    def stats(self) -> Stats:
        """The counts so far, as a `Stats` that does not change any more."""
        return self._core.stats


def _checked(response: Any, request: Request) -> Response:
    """Return what an origin answered, its headers in lower case, with an etag if it is a good one.

    Raises:
        TypeError: It is no Response, or does not hold what one holds.
    """
    what = f"the response to {request.path!r:.80}"
    if not isinstance(response, Response):
        raise TypeError(f"{what} must be a Response, not {response!r:.80}")
    if not isinstance(response.body, str):
        raise TypeError(f"the body of {what} must be a str, not {response.body!r:.80}")
    _check.whole(f"the status of {what}", response.status, least=100, most=599)
    headers = _headers(response.headers)
    if response.status == 200 and request.method == "GET" and "etag" not in headers:
        body = response.body.encode(errors="surrogatepass")
        headers["etag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return replace(response, headers=headers)


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping of names to texts, not {headers!r:.80}")
    found: dict[str, str] = {}
    for name in headers:
        lower = _check.identity("the name of a header", name).lower()
        if lower in found:
            raise ValueError(f"headers must have each name once, not {name!r} in two spellings")
        found[lower] = _check.text(f"the header {name!r}", headers[name]).strip()
    return found


def _params(params: Params) -> Pairs:
    if isinstance(params, str | bytes) or not isinstance(params, Iterable):
        raise TypeError(f"params must be a mapping or pairs, not {params!r:.80}")
    found = []
    for pair in params.items() if isinstance(params, Mapping) else params:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"each of params must be a name and a value, not {pair!r:.80}")
        name, value = _check.text("the name of a parameter", pair[0]), pair[1]
        for one in value if isinstance(value, list | tuple) else (value,):
            found.append((name, _value(name, one)))
    return tuple(sorted(found, key=itemgetter(0)))


def _value(name: str, value: object) -> str:
    """Return a parameter as a URL has it, where that is beyond doubt."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _check.text(f"the parameter {name!r}", value)


def _has(if_none_match: str | None, etag: str) -> bool:
    """Whether a client says that it has the response of this tag; weak ones count (RFC 9110)."""
    told = if_none_match or ""
    return told.strip() == "*" or etag.removeprefix("W/") in TAGS.findall(told)
