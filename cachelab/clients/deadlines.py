"""Calls that end in time: all that a call to Redis crosses on its way, pool, connection, socket.

redis-py's timeout is one for each read, so that a peer that drips bytes holds a call for as long as
it likes; and its pools hang where a signal handler interrupts them and calls again. The asyncio
twin of this module is `cachelab.clients.deadlines_async`.
"""

# mypy: allow-untyped-calls
# redis-py's connections and pools are typed in part.

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from queue import Empty, Full, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

import redis
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from cachelab import _locks
from cachelab.clients import answered
from cachelab.clients.failures import foreign, is_transient, verdict
from cachelab.clients.lookup import addresses
from cachelab.clients.replies import AGGREGATES, HUGE, LONGEST, check_greeting, check_sizes

T = TypeVar("T")

QUEUE = 20.0  # seconds that a call waits at most for a connection
SECONDS_PER_BYTE = 2e-7  # 5 MB/s: a big reply may take its time, a dripping one may not

# With notices of maintenance redis-py would not tell an unread reply from such a notice.
QUIET = MaintNotificationsConfig(enabled=False)


_TEXTS = {str, bytes}
_NUMBERS = {int, float}


class Deadline(threading.local):
    """When a thread's call must be over: later by what it waited for a connection.

    No ContextVar: Python 3.11 crashes where the collector, in the middle of its `set`, runs a
    finaliser that sets one, too.
    """

    until = inf  # on the monotonic clock


DEADLINE = Deadline()


class Pool(redis.BlockingConnectionPool):
    """Connections for the threads of a process: a call that finds none free waits for one.

    Written anew where redis-py's is not re-entrant, or takes a signal handler's exception for an
    error of the connection. It counts nothing for redis-py's OpenTelemetry metrics.
    """

    def __init__(self, **settings: Any):
        super().__init__(queue_class=Queue, maint_notifications_config=QUIET, **settings)
        self._lock = _locks.lock()
        self._fork_lock = _locks.lock()

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        self._checkpid()
        try:
            connection = self.pool.get(timeout=self.timeout)
        except Empty:
            raise ConnectionError("No connection available.") from None
        try:
            if connection is None:
                connection = self.make_connection()
            connection.connect()
            if _has_unread(connection):
                connection.disconnect()
                connection.connect()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        self._checkpid()
        if connection is not None and connection.pid != self.pid:  # its parent's
            connection.disconnect()
            connection = None
        with suppress(Full):
            self.pool.put_nowait(connection)

    def drop(self) -> None:
        """Let each call that begins from now on open a new connection."""
        for connection in list(self._connections):
            connection.dropped = True


class Queue:
    """Idle connections, the last one returned first; None stands for one that is to be made.

    Of parts that are atomic: queue.LifoQueue holds a lock while Python runs, and a signal handler
    or a finaliser that interrupts it there and wants a connection too waits for ever.
    """

    def __init__(self, maxsize: int = 0):
        self._maxsize = maxsize
        self._connections: list[Any] = []
        self._permits: SimpleQueue[None] = SimpleQueue()  # one for each connection
        self._answered = 0.0  # when a connection that still stands came back

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            self._permits.get_nowait()
        except Empty:
            self._wait(QUEUE if timeout is None else timeout)
        return self._connections.pop()

    def put_nowait(self, connection: Any) -> None:
        if self.full():
            raise Full
        if connection is not None and connection.is_connected:
            self._answered = monotonic()
            answered.servers.add(connection.server)
        self._connections.append(connection)
        self._permits.put(None)

    def full(self) -> bool:
        return len(self._connections) >= self._maxsize

    @property
    def queue(self) -> list[Any]:
        return list(self._connections)

    def _wait(self, timeout: float) -> None:
        """Wait for a permit, with a deadline for as long as others are answered in its time.

        A long queue is not Redis being slow: the deadline moves by what was waited.
        """
        began = now = monotonic()
        allowed = DEADLINE.until - began
        while True:
            until = min(began + timeout, max(began, self._answered) + allowed)
            try:
                self._permits.get(timeout=max(0.0, until - now))
                break
            except Empty:
                now = monotonic()
                if now >= min(began + timeout, self._answered + allowed):
                    raise
        if allowed < inf:
            DEADLINE.until += monotonic() - began


def _has_unread(connection: Any) -> bool:
    """Tell whether an idle connection was closed by its peer, or has a reply that nobody awaits."""
    try:
        return bool(connection.can_read())
    except (RedisError, OSError) as error:
        cause = foreign(error)
    if cause is not None:
        raise cause
    return True


class _Packer(HiredisRespSerializer):
    """What writes commands, with numbers as text.

    hiredis writes a number by Python's repr, which runs signal handlers, and crashes where one of
    them raises.
    """

    def pack(self, *args: Any) -> list[bytes]:
        if not {*map(type, args)} <= _TEXTS:
            args = tuple(repr(arg) if type(arg) in _NUMBERS else arg for arg in args)
        return super().pack(*args)  # type: ignore[no-any-return]


PACKER = _Packer()


class _Timed(redis.connection.AbstractConnection):
    """A connection whose calls end in time, however slowly the reply arrives."""

    socket_timeout: float  # never None here
    server = ""  # its name and version, if it has told them
    dropped = False
    _until = inf  # when the call must be over
    _end = inf  # when this try to connect must be over

    def __init__(self, *, mode: str = "standalone", **settings: Any):
        super().__init__(**settings, command_packer=PACKER)  # type: ignore[arg-type]
        self._mode = mode

    def connect(self) -> None:  # the pool calls this as each call begins
        allowed = (1 + self.retry.get_retries()) * self.socket_timeout
        self._until = min(monotonic() + allowed, DEADLINE.until)
        if self.dropped:
            self.dropped = False
            self.disconnect()
        if self._sock is None:
            super().connect()
        else:
            self._sock.until = self._until

    def _connect(self) -> Any:
        self._end = min(monotonic() + self.socket_timeout, self._until)
        self.socket_connect_timeout = self._left()
        sock = super()._connect()  # type: ignore[safe-super]
        sock.settimeout(self.socket_timeout)
        return _Socket(sock, self.socket_timeout, self._until)

    def _left(self) -> float:
        left = self._end - monotonic()
        if left <= 0:
            raise TimeoutError("no time is left to connect")
        return left

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        if self.protocol == 3:
            self.server = check_greeting(self.handshake_metadata, self._mode)


class _TCP(redis.Connection):
    """A connection to a host by its name: one deadline for look-up, all addresses and TLS."""

    _end: float
    _left: Callable[[], float]

    def _connect(self) -> Any:
        places = addresses(self.host, self.port, self.socket_type, self._left())
        failure: OSError = OSError(f"name {self.host} has no address")
        for nth, place in enumerate(places):
            try:
                return self._open(place, self._left() / (len(places) - nth))
            except OSError as error:
                if foreign(error):
                    raise
                failure = error
        raise failure

    def _open(self, place: tuple[Any, ...], seconds: float) -> socket.socket:
        sock = socket.socket(*place[:3])
        try:
            set_options(sock, self)
            sock.settimeout(seconds)
            sock.connect(place[4])
            sock.settimeout(self._left())  # for TLS
        except BaseException:
            sock.close()
            raise
        return sock


class TCPConnection(_Timed, _TCP):
    """redis://"""


class TLSConnection(_Timed, redis.SSLConnection, _TCP):
    """rediss://"""


class UnixConnection(_Timed, redis.UnixDomainSocketConnection):
    """unix://"""

    host = port = None  # type: ignore[assignment]  # asked for by redis-py's own count of errors


class Retry(redis.retry.Retry):
    """Sends a call again that Redis or the network failed, and no other.

    redis-py's would also repeat a call that a signal handler's time limit ended, and leave an
    unread reply on the connection where an exception comes between command and reply.
    """

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        try:
            return super().call_with_retry(do, fail, is_transient, with_failure_count)
        except ResponseError:
            raise
        except BaseException as error:
            cause = verdict(error)
            if cause is not error or not isinstance(error, RedisError):
                with suppress(RedisError, OSError):  # disconnects
                    fail(error, 1) if with_failure_count else fail(error)
            if cause is error:
                raise
            raise cause from cause.__cause__


class _Socket:
    """A socket whose reads share one deadline, counted from the last send.

    The usual reply comes whole with the first read, under the timeout that already stands: no
    system call is added.
    """

    def __init__(self, sock: socket.socket, timeout: float, until: float):
        self._sock, self._timeout, self.until = sock, timeout, until
        self._deadline, self._reads, self._usual, self._foreign = until, 0, True, False
        self._head: bytes | None = None  # of a reply whose first line has not ended yet
        for name in ("fileno", "recv", "shutdown", "close", "getpeername", "pending"):
            if hasattr(sock, name):  # only TLS has pending
                setattr(self, name, getattr(sock, name))

    def sendall(self, data: bytes) -> None:
        now = monotonic()
        explained = len(data) * SECONDS_PER_BYTE
        self._deadline = min(now + self._timeout, self.until) + explained
        self._reads = 0
        self._head = b""
        if not self._usual or self.until - now < self._timeout or explained > 0.01:
            self._wait(self._deadline - now)
        self._sock.sendall(data)

    def recv_into(self, buffer: bytearray) -> int:
        if self._reads and not self._foreign:
            self._wait(self._deadline - monotonic())
        count = self._sock.recv_into(buffer)
        if self._head is not None:
            is_open = self._head or buffer[0] in AGGREGATES
            head = bytes(self._head + buffer[:count]) if is_open else b""
            if HUGE.search(head):
                check_sizes(head)
            cut = is_open and b"\r\n" not in head and len(head) < LONGEST
            self._head = head if cut else None
        self._reads += 1
        self._deadline += count * SECONDS_PER_BYTE
        return count

    def hurry(self) -> None:
        """Leave the first read, too, only what remains of the time since the last send."""
        self._reads += 1

    def settimeout(self, seconds: float | None) -> None:
        """Take redis-py's own, while it listens to Pub/Sub."""
        self._foreign = seconds != self._timeout
        self._usual = not self._foreign
        self._sock.settimeout(seconds)

    def gettimeout(self) -> float | None:
        return self._sock.gettimeout()

    def _wait(self, seconds: float) -> None:
        self._usual = seconds == self._timeout
        self._sock.settimeout(max(seconds, 0.001))


def set_options(sock: socket.socket, connection: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if connection.socket_keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in connection.socket_keepalive_options.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


BY_SCHEME = {"redis": TCPConnection, "rediss": TLSConnection, "unix": UnixConnection}
