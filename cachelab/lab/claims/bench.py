"""The bench: servers of the trials' own, and the register of the short experiments."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachelab.lab.claims.cases import Case
from cachelab.lab.measure import link
from cachelab.server.server import Server

BIG = 10_000  # of what is large
TRIALS: dict[str, Callable[["Bench"], list[Case]]] = {}


class Bench:
    """A server of the trials' own, a client of it, and other servers as they are asked for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._made: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @functools.cached_property
    def server(self) -> Server:
        """The server, started when it is first asked for."""
        return self._stack.enter_context(Server())

    @functools.cached_property
    def client(self) -> Any:
        """A client of it."""
        return self.plain()

    def plain(self, url: str | None = None, **options: Any) -> Any:
        """Return a client as redis-py makes it, without its retries.

        Any: its types say all that a reply may be, for both kinds of decoding.
        """
        options = {"decode_responses": True, "retry": Retry(NoBackoff(), 0)} | options
        client = redis.Redis.from_url(url or self.server.url, **options)
        self._stack.callback(client.close)
        return client

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what was made under a name, made at the first call."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @functools.cached_property
    def full(self) -> Any:
        """A client of a server of 2 MB that is full and evicts nothing, as by default."""
        client = self.plain(self._stack.enter_context(Server(maxmemory="2mb")).url)
        with suppress(redis.OutOfMemoryError):
            for number in range(BIG):
                client.set(f"full:{number}", "x" * 1000)
        return client

    @contextmanager
    def far(self, rtt_ms: float) -> Iterator[Any]:
        """Give a client that is further away."""
        with link.Link(self.server.url, rtt_ms=rtt_ms) as road:
            client = self.plain(road.url)
            yield client
            client.close()


def trial(call: Callable[[Bench], list[Case]]) -> Callable[[Bench], list[Case]]:
    TRIALS[call.__name__] = call
    return call


def awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function in a thread, where no loop runs."""

    async def main() -> Any:
        return await call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, main()).result()


def took(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def raised(call: Callable[[], object]) -> type[BaseException] | None:
    """Return the type of what a call raises."""
    try:
        call()
    except BaseException as error:
        return type(error)
    return None
