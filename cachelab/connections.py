"""Connections and pools whose calls end in time, whatever a call waits for; redis-py's timeout is one per read."""

import asyncio
import queue
import socket
from contextvars import ContextVar
from math import inf
from time import monotonic

import redis
import redis.asyncio

QUEUE = 20.0  # seconds that a call waits at most for a connection
SECONDS_PER_BYTE = 2e-7  # what 5 MB/s explains: a big reply may take its time, a dripping one may not

UNTIL = ContextVar("until", default=inf)  # when a call must be over, on the monotonic clock, whatever it waits for


class Queue(queue.LifoQueue):
    """Idle connections, for which a call waits until UNTIL at most."""

    def get(self, block=True, timeout=None):
        return super().get(block, max(0.0, min(timeout, UNTIL.get() - monotonic())))


class _LoopPool(redis.asyncio.BlockingConnectionPool):
    timeout = property(lambda self: max(0.0, min(QUEUE, UNTIL.get() - monotonic())), lambda self, seconds: None)


class PoolPerLoop(redis.asyncio.BlockingConnectionPool):
    """A pool for each event loop that comes by, since a connection cannot leave its loop."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self._settings = settings
        self._pools: dict[asyncio.AbstractEventLoop, _LoopPool] = {}

    def _here(self) -> _LoopPool:
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            for closed in [known for known in list(self._pools) if known.is_closed()]:
                self._pools.pop(closed, None)
            self._pools[loop] = _LoopPool(**self._settings)
        return self._pools[loop]

    async def get_connection(self, command_name=None, *keys, **options):
        return await self._here().get_connection()

    async def release(self, connection):
        await self._here().release(connection)

    async def disconnect(self, inuse_connections: bool = True):
        await self._here().disconnect(inuse_connections)


class _Deadline:
    """Mixin for a connection: a call ends in time, however slowly its reply arrives.

    redis-py's timeout is one per read, so a peer that drips bytes holds a call for as long as it likes.
    """

    def connect(self):  # the pool calls this as each call begins
        allowed = (1 + self.retry.get_retries()) * self.socket_timeout
        self._until = min(monotonic() + allowed, UNTIL.get())
        if self._sock is None:
            super().connect()
        else:
            self._sock.until = self._until

    def _connect(self):
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket_connect_timeout = min(self.socket_timeout, left)
        return _Socket(super()._connect(), self.socket_timeout, self._until)


class _Socket:
    """A socket whose reads share one deadline, counted from the last send.

    The usual reply comes whole with the first read, under the timeout that already stands: no system call is added.
    """

    def __init__(self, sock: socket.socket, timeout: float, until: float):
        self._sock, self._timeout, self.until = sock, timeout, until
        self._deadline, self._reads, self._usual, self._foreign = until, 0, True, False
        for name in ("fileno", "recv", "shutdown", "close", "getpeername", "pending"):
            if hasattr(sock, name):  # only TLS has pending
                setattr(self, name, getattr(sock, name))

    def sendall(self, data) -> None:
        now = monotonic()
        explained = len(data) * SECONDS_PER_BYTE
        self._deadline = min(now + self._timeout, self.until) + explained
        self._reads = 0
        if not self._usual or self.until - now < self._timeout or explained > 0.01:
            self._wait(self._deadline - now)
        self._sock.sendall(data)

    def recv_into(self, buffer) -> int:
        if self._reads and not self._foreign:
            self._wait(self._deadline - monotonic())
        count = self._sock.recv_into(buffer)
        self._reads += 1
        self._deadline += count * SECONDS_PER_BYTE
        return count

    def settimeout(self, seconds: float | None) -> None:  # redis-py sets one of its own while it listens to Pub/Sub
        self._foreign = seconds != self._timeout
        self._usual = not self._foreign
        self._sock.settimeout(seconds)

    def _wait(self, seconds: float) -> None:
        self._usual = seconds == self._timeout
        self._sock.settimeout(max(seconds, 0.001))


class _AsyncDeadline:
    """The asyncio twin, for UNTIL alone: redis-py itself bounds an awaited reply as a whole."""

    async def connect(self):
        self._until = UNTIL.get()
        if not self.is_connected:
            await super().connect()

    async def _connect(self):
        self.socket_connect_timeout = max(0.0, min(self.orig_socket_timeout, self._until - monotonic()))
        await super()._connect()

    async def read_response(self, *args, **kwargs):
        if self._until < inf:
            self.socket_timeout = max(0.001, min(self.orig_socket_timeout, self._until - monotonic()))
        return await super().read_response(*args, **kwargs)


def _both(base: type, deadline: type) -> type:
    return type(base.__name__, (deadline, base), {})


BY_SCHEME, ASYNC_BY_SCHEME = (
    {
        "redis": _both(module.Connection, deadline),
        "rediss": _both(module.SSLConnection, deadline),
        "unix": _both(module.UnixDomainSocketConnection, deadline),
    }
    for module, deadline in ((redis, _Deadline), (redis.asyncio, _AsyncDeadline))
)
