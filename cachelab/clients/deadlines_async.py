"""Calls that end in time, unless it is the event loop that is late: the twin of `deadlines`."""

# mypy: allow-untyped-calls
# redis-py's connections and pools are typed in part.

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import Any, Generic, TypeVar

import redis.asyncio
from redis._parsers.hiredis import _AsyncHiredisParser
from redis.exceptions import ConnectionError, RedisError, ResponseError

from cachelab._loops import PerLoop
from cachelab.clients import answered
from cachelab.clients.deadlines import QUEUE, QUIET, SECONDS_PER_BYTE, set_options
from cachelab.clients.failures import Away, foreign, is_transient, verdict
from cachelab.clients.lookup import addresses_async
from cachelab.clients.replies import AGGREGATES, HUGE, LONGEST, check_greeting, check_sizes

T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# When a call must be over, as `deadlines.DEADLINE`, but of a task.
DEADLINE: ContextVar[float] = ContextVar("deadline", default=inf)

LARGE = 2**16  # bytes: what asyncio sends without waiting
LATE = 0.02  # seconds: a timer that fires later than this tells of a busy event loop
ASKING = 1.8  # timeouts that it may take to ask several: who waits for two hears of it
TURNS = 3  # of an event loop: what has arrived is read in the first, and awaited in the second


class PoolPerLoop(redis.asyncio.BlockingConnectionPool):
    """A pool for each event loop that comes by, since a connection cannot leave its loop."""

    def __init__(self, **settings: Any):
        settings["maint_notifications_config"] = QUIET
        super().__init__(**settings)
        self._pools: PerLoop[LoopPool] = PerLoop(lambda: LoopPool(**settings))

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        return await self._pools.here().get_connection()

    async def release(self, connection: Any) -> None:
        await self._pools.here().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await self._pools.here().disconnect(inuse_connections)

    def drop(self) -> None:
        """Let each call that begins from now on open a new connection."""
        for _, pool in self._pools.all():
            pool.drop()

    def close_idle(self) -> None:
        """Close connections from anywhere, each in its own loop, without waiting for it."""
        for loop, pool in self._pools.all():
            with suppress(RuntimeError):  # closed, and its connections with it
                loop.call_soon_threadsafe(pool.close_idle)


class LoopPool(redis.asyncio.BlockingConnectionPool):
    """The connections of one event loop."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self._room = self.max_connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._answered = 0.0  # when a connection that still stands came back

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        if self._room:
            self._room -= 1
        else:
            await self._queue()
        connection = None
        try:
            connection = self.get_available_connection()
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        if connection is not None:
            self._in_use_connections.discard(connection)
            self._available_connections.append(connection)
            if connection.is_connected:
                self._answered = monotonic()
                answered.servers.add(connection.server)
        self._make_room()

    def drop(self) -> None:
        """Let each call that begins from now on open a new connection."""
        connections: list[Any] = [*self._available_connections, *self._in_use_connections]
        for connection in connections:
            connection.dropped = True

    def close_idle(self) -> None:
        """Close connections that no call uses, without waiting for it."""
        for connection in self._available_connections:
            connection._close()

    def _make_room(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._room += 1

    async def _queue(self) -> None:
        """Wait for room, as `Queue` does; a busy event loop gets its turns before it is late."""
        began = counted = monotonic()
        allowed = DEADLINE.get() - began
        again = TURNS
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            while not waiter.done():
                until = min(began + QUEUE, max(counted, self._answered) + allowed)
                left = until - monotonic()
                if left > 0:
                    await asyncio.wait({waiter}, timeout=left)
                    continue
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                if waiter.done() or until < min(began + QUEUE, self._answered + allowed):
                    continue
                if left > -LATE or not again:
                    raise ConnectionError("No connection available.")
                again -= 1
                counted = monotonic()
        except BaseException:
            if not waiter.cancel():  # there was room, at the very moment of giving up
                self._make_room()
            raise
        if allowed < inf:
            DEADLINE.set(DEADLINE.get() + monotonic() - began)


class _Limit:
    """A time limit for what a connection waits for, which a busy event loop does not use up.

    asyncio's own ends an await when its timer comes, though the reply may have arrived while the
    loop was away. This one, when it comes late, begins again with what it was late by, and then
    lets the loop read what has arrived. One timer serves many awaits, one after the other.
    """

    def __init__(self) -> None:
        self.due = inf  # when what is awaited now must have come
        self.lag = 0.0  # seconds that the loop was away meanwhile
        self.head: bytes | None = None  # of a reply whose first line has not ended yet
        self.streams: Streams | None = None
        self._seconds = 0.0
        self._again = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        self.due = monotonic() + seconds
        self.lag = 0.0
        self._seconds = seconds
        self._again = TURNS
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(self.due - monotonic(), 0.0), self._fire, self.due)

    def _fire(self, planned: float) -> None:
        now = monotonic()
        late = now - planned
        self._timer = None
        if self.due == inf:
            return
        if self.due <= now and late > LATE and self._again:
            self._again -= 1
            self.lag += late
            self.due = now + min(late, self._seconds)
        if self.due > now:
            self._arm()
        else:
            self._turn(self.due, TURNS)

    def _turn(self, due: float, left: int) -> None:
        if self.due != due:  # it came
            if self.due < inf and self._timer is None:
                self._arm()
        elif left:
            asyncio.get_running_loop().call_soon(self._turn, due, left - 1)
        elif self.streams is not None:
            reader, writer = self.streams
            reader.set_exception(TimeoutError("the reply did not come in time"))
            writer.transport.abort()


class Parser(_AsyncHiredisParser):
    """hiredis, told how much may come: see `check_sizes`; what comes explains some time."""

    __slots__ = ("_limit",)
    _reader: Any
    _stream: Any

    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)
        self._limit: _Limit = connection.limit

    async def read_from_socket(self) -> bool:
        data = await self._stream.read(self._read_size)
        if not data:
            raise ConnectionError("Connection closed by server.")
        limit = self._limit
        limit.due += len(data) * SECONDS_PER_BYTE
        if limit.head is not None:
            is_open = limit.head or data[0] in AGGREGATES
            head = bytes(limit.head + data) if is_open else b""
            if HUGE.search(head):
                check_sizes(head)
            cut = is_open and b"\r\n" not in head and len(head) < LONGEST
            limit.head = head if cut else None
        self._reader.feed(data)
        return True


class _AsyncTimed(redis.asyncio.connection.AbstractConnection):
    """A connection whose calls end in time, unless it is the event loop that is late."""

    server = ""  # its name and version, if it has told them
    dropped = False
    _until = inf  # when the call must be over
    _end = inf  # when this try to connect must be over
    _explained = 0.0  # seconds that the size of the last command explains
    _is_greeting = False

    def __init__(self, *, socket_timeout: float, mode: str = "standalone", **settings: Any):
        super().__init__(socket_timeout=None, **settings)
        self._timeout = socket_timeout
        self._mode = mode
        self.greeting: Any = None
        self.limit = _Limit()

    async def connect(self) -> None:  # the pool calls this as each call begins
        self._until = DEADLINE.get()
        if self.dropped:
            self.dropped = False
            await self.disconnect(nowait=True)
        if not self.is_connected:
            allowed = (1 + self.retry.get_retries()) * self._timeout
            self._until = min(monotonic() + allowed, self._until)
            await super().connect()
            self._until = DEADLINE.get()

    async def _connect(self) -> None:
        self._end = min(monotonic() + self._timeout, self._until)
        self._reader, self._writer = await self._open()
        self.limit.streams = self._reader, self._writer

    async def _open(self) -> Streams:
        raise NotImplementedError

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self._is_greeting = self.protocol == 3
        await super().on_connect_check_health(check_health)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if not isinstance(command, (bytes, str, list)):
            command = list(command)
        size = len(command) if isinstance(command, (bytes, str)) else sum(map(len, command))
        self._explained = size * SECONDS_PER_BYTE
        self.limit.head = b""
        if size > LARGE:
            self.limit.start(self._left())
        try:
            await super().send_packed_command(command, check_health)
        finally:
            self.limit.due = inf

    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109
        **options: Any,
    ) -> Any:
        if timeout is not None:  # redis-py's own, while it listens to Pub/Sub
            return await super().read_response(disable_decoding, timeout, **options)
        self.limit.start(self._left())
        try:
            response = await super().read_response(disable_decoding, **options)
        finally:
            self.limit.due = inf
            self._until += self.limit.lag
        if self._is_greeting:
            self._is_greeting = False
            self.server = check_greeting(response, self._mode)
            self.greeting = response
        return response

    def _left(self) -> float:
        """Return the seconds that the next await may take."""
        return max(min(self._timeout, self._until - monotonic()), 0.001) + self._explained

    async def _within(self, seconds: float, what: Coroutine[Any, Any, T]) -> T:
        """Await a part of connecting for so many seconds; a busy event loop gets more."""
        task = asyncio.ensure_future(what)
        try:
            for _ in range(TURNS):
                due = monotonic() + seconds
                await asyncio.wait({task}, timeout=max(seconds, 0.0))
                late = monotonic() - due
                for _ in range(TURNS):
                    if not task.done():
                        await asyncio.sleep(0)
                if task.done() or late <= LATE:
                    break
                seconds = min(late, seconds)
                self._until += late
                self._end += late
            if task.done():
                return task.result()
            raise TimeoutError("connecting took too long")
        finally:
            task.cancel()


class AsyncTCPConnection(_AsyncTimed, redis.asyncio.Connection):
    """redis://: one deadline for look-up, all addresses and TLS."""

    async def _open(self) -> Streams:
        look_up = addresses_async(self.host, self.port, int(self.socket_type))
        places = await self._within(self._end - monotonic(), look_up)
        failure: OSError = OSError(f"name {self.host} has no address")
        for nth, place in enumerate(places):
            share = (self._end - monotonic()) / (len(places) - nth)
            try:
                return await self._within(share, self._open_at(place))
            except OSError as error:
                if foreign(error):
                    raise
                failure = error
        raise failure

    async def _open_at(self, place: tuple[Any, ...]) -> Streams:
        sock = socket.socket(*place[:3])
        try:
            set_options(sock, self)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, place[4])
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, **self._security())

    def _security(self) -> dict[str, Any]:
        return {}


class AsyncTLSConnection(AsyncTCPConnection, redis.asyncio.SSLConnection):
    """rediss://"""

    def _security(self) -> dict[str, Any]:
        return {"ssl": self.ssl_context.get(), "server_hostname": self.host}


class AsyncUnixConnection(_AsyncTimed, redis.asyncio.UnixDomainSocketConnection):
    """unix://"""

    async def _open(self) -> Streams:
        return await self._within(
            self._end - monotonic(), asyncio.open_unix_connection(path=self.path)
        )


class Once(Generic[T]):
    """A coroutine function that runs once at a time: who comes meanwhile waits for that run.

    Each waits within a deadline of its own; the run ends when nobody waits for it any more.

    Args:
        run: The coroutine function: of when it is to end, on the monotonic clock, and what else
            the first of them says.
        names: A function that returns whom it asks.
        seconds: How long a run may take. It gets a quarter of that if the first has less time.
    """

    def __init__(
        self,
        run: Callable[..., Coroutine[Any, Any, T]],
        names: Callable[[], list[str]],
        seconds: float,
    ):
        self._run = run
        self._names = names
        self._seconds = seconds
        self._task: asyncio.Task[T] | None = None
        self._waiting = 0
        self._tried: dict[str, Exception] = {}  # what came of the last run, if nobody answered

    async def __call__(self, *args: Any) -> T:
        """Return what the run returns, or raise what it raises.

        Raises:
            TimeoutError: The deadline of who waits is over.
            Away: It is, and nobody answered the last run.
        """
        now = monotonic()
        left = DEADLINE.get() - now
        if self._task is None or self._task.done():
            until = now + max(self._seconds / 4, min(left, self._seconds))
            limit = DEADLINE.set(inf)
            try:
                self._task = asyncio.ensure_future(self._run(until, *args))
            finally:
                DEADLINE.reset(limit)
            self._task.add_done_callback(self._learn)
        task = self._task
        self._waiting += 1
        try:
            # A little longer: the run may be about to say what it has heard from each.
            await asyncio.wait({task}, timeout=None if left == inf else max(left, 0.0) + LATE)
        finally:
            self._waiting -= 1
            if not (task.done() or self._waiting):
                self._task = None
                task.cancel()
                await asyncio.wait({task})  # its connection is closed then
        is_over = not task.done() or task.cancelled()
        if is_over and self._tried:
            raise Away(self._tried)
        if is_over:
            raise redis.TimeoutError(f"{', '.join(self._names())}: no answer in time")
        error = task.exception()
        if isinstance(error, Away):
            raise Away(error.tried)  # each with an object of its own
        if error is not None:
            raise error
        return task.result()

    def _learn(self, task: "asyncio.Task[T]") -> None:
        if not task.cancelled():
            error = task.exception()
            self._tried = error.tried if isinstance(error, Away) else {}


class AsyncRetry(redis.asyncio.retry.Retry):
    """The twin of `deadlines.Retry`."""

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[T]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        try:
            return await super().call_with_retry(do, fail, is_transient, with_failure_count)
        except ResponseError:
            raise
        except BaseException as error:
            cause = verdict(error)
            if cause is not error or not isinstance(error, RedisError):
                with suppress(RedisError, OSError):  # disconnects
                    await (fail(error, 1) if with_failure_count else fail(error))
            if cause is error:
                raise
            raise cause from cause.__cause__


BY_SCHEME = {
    "redis": AsyncTCPConnection,
    "rediss": AsyncTLSConnection,
    "unix": AsyncUnixConnection,
}
