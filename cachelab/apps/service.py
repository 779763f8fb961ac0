"""Calls from one service to another: made once for all who ask, and answered while it is down.

Answers are kept by refresh-ahead. Whoever asks at once shares one call, in all processes. When an
answer is to be refreshed its readers have the old one meanwhile, and if the other side is down they
go on having it until it is ttl + grace old: a fault over there is not passed on here.

Only an answer that nobody has yet has to be waited for. So that each such reader does not wait for
a time-out of its own, the other side is left alone for a while after some failures in a row.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import redis
import redis.asyncio

from cachelab import _check
from cachelab.apps.calls import Calls
from cachelab.cache.breaker import Breaker
from cachelab.errors import ServiceDown
from cachelab.writes.ahead import AheadStats, AsyncRefreshAhead, RefreshAhead

V = TypeVar("V")


class _OtherSide:
    """What is known here of the other side."""

    def __init__(self, failures: int, pause: float, down: tuple[type[Exception], ...]):
        limit = _check.whole("failures", failures, least=1)
        seconds = _check.number("pause", pause, above=0, high=_check.LONGEST_WAIT)
        self._breaker = Breaker(limit, seconds)
        self._down = tuple(down) if isinstance(down, tuple | list) else (down,)
        for kind in self._down:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise TypeError(f"down must be classes of exceptions, not {kind!r:.80}")

    @property
    def is_left_alone(self) -> bool:
        return self._breaker.state == "open"

    @contextmanager
    def called(self, id: str) -> Iterator[None]:
        """Note how a call ends; raise instead of calling who is left alone."""
        if not self._breaker.allows():
            raise ServiceDown(
                f"{id!r} is not asked for: the other side failed several times in a row, "
                "and is tried again soon"
            )
        try:
            yield
        except self._down:
            self._breaker.failed()
            raise
        except Exception:  # it has answered, if with an error
            self._breaker.succeeded()
            raise
        self._breaker.succeeded()


class AsyncService(Generic[V]):
    """Another service as its callers see it, for asyncio. Without Redis each call goes there.

    Args:
        client: What `connect_async` returns.
        call: An async function of an id, which names all that is asked for, that returns a
            JSON-able answer, or None if there is none. It should time out by itself.
        ttl: Seconds after which an answer is to be refreshed.
        grace: Seconds that an old one may be given after that, while the other side is down.
        missing_ttl: Seconds after which it is asked again about what was not there.
        lease: Seconds between two tries to refresh an answer.
        failures: How many failures in a row have it left alone.
        pause: Seconds for which it is: then one call is let through.
        down: The exceptions of `call` that mean that it is down; after any other it is up.
        prefix: What every key starts with; one for each service.
        max_loads: Calls at the same time; more of them queue.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        call: Callable[[str], Awaitable[V | None]],
        ttl: float,
        grace: float,
        missing_ttl: float | None = 30,
        lease: float = 2.5,
        failures: int = 5,
        pause: float = 1,
        down: tuple[type[Exception], ...] = (OSError,),
        prefix: str = "service:",
        max_loads: int = 20,
    ):
        Calls(client, "async").check_function("call", call)
        self._other = other = _OtherSide(failures, pause, down)

        async def load(id: str) -> V | None:
            with other.called(id):
                return await call(id)

        self._ahead: AsyncRefreshAhead[V] = AsyncRefreshAhead(
            client,
            load,
            ttl,
            grace,
            missing_ttl=missing_ttl,
            prefix=prefix,
            lease=lease,
            max_loads=max_loads,
        )

    async def get(self, id: str) -> V | None:
        """Return the answer about an id, None if there is none.

        Raises:
            ServiceDown: It is left alone for now, and there is no old answer.
            Exception: Whatever call raises, if there is no old answer.
        """
        return await self._ahead.get(id)

    async def invalidate(self, id: str) -> None:
        """Forget the answer about an id, the old one too; see `RefreshAhead.invalidate`."""
        await self._ahead.invalidate(id)

    @property
    def is_left_alone(self) -> bool:
        """Whether this process makes no calls for now, since the last ones failed."""
        return self._other.is_left_alone

    @property
    def stats(self) -> AheadStats:
        """The counts so far; `stale` are answers older than ttl, `failed` calls to refresh one."""
        return self._ahead.stats


class Service(Generic[V]):
    """The twin of `AsyncService` that blocks, with a plain function and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        call: Callable[[str], V | None],
        ttl: float,
        grace: float,
        missing_ttl: float | None = 30,
        lease: float = 2.5,
        failures: int = 5,
        pause: float = 1,
        down: tuple[type[Exception], ...] = (OSError,),
        prefix: str = "service:",
        max_loads: int = 20,
    ):
        Calls(client, "sync").check_function("call", call)
        self._other = other = _OtherSide(failures, pause, down)

        def load(id: str) -> V | None:
            with other.called(id):
                return call(id)

        self._ahead: RefreshAhead[V] = RefreshAhead(
            client,
            load,
            ttl,
            grace,
            missing_ttl=missing_ttl,
            prefix=prefix,
            lease=lease,
            max_loads=max_loads,
        )

    def get(self, id: str) -> V | None:
        """See `AsyncService.get`."""
        return self._ahead.get(id)

    def invalidate(self, id: str) -> None:
        """See `AsyncService.invalidate`."""
        self._ahead.invalidate(id)

    @property
    def is_left_alone(self) -> bool:
        """Whether this process makes no calls for now, since the last ones failed."""
        return self._other.is_left_alone

    @property
    def stats(self) -> AheadStats:
        """The counts so far; `stale` are answers older than ttl, `failed` calls to refresh one."""
        return self._ahead.stats
