"""A slow or broken network in front of a server: a relay on loopback, in a process of its own.

One loop serves every connection: bytes are stamped when they arrive and released half a round trip later, so pipelined
traffic is late by the delay once, never once per chunk. The loop sleeps until 0.15 ms before the next release and polls
from there, because a timer alone is late by about a tenth of a millisecond; with nothing due it sleeps and costs nothing.
"""

import heapq
import json
import math
import os
import resource
import select
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Self
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from cachelab import _check
from cachelab.errors import ServerError

SPIN = 0.00015  # s: polled rather than slept through before a release
HELD = 4 * 2**20  # bytes read ahead of a slow receiver, per direction and connection
DRIPPED = 64  # the same while bytes drip: each then waits by itself
LONGEST = 60_000  # ms


class Link:
    """Stand between clients and the server at ``url`` and add ``rtt_ms`` milliseconds to each round trip.

    A client that connects to ``.url`` (own ``.port``; credentials, database, options as in ``url``) finds a PING ``rtt_ms`` slower
    than at ``url``. The relay's own cost, about 0.1 ms, is measured at the start (``.own_ms``: the PING through the link at
    1 ms, less the PING beside it, less that 1 ms) and taken off the delay; so an rtt_ms below own_ms, 0 too, adds own_ms.
    ``measured_ms`` and ``added_ms`` say what is really reached: under load the relay needs processor time like all others,
    and past some 2 ms client and server fall idle while they wait, so that each waking costs them a few 0.1 ms more.

    The relay ends with the process that started it, however that ends. A rediss:// connection is passed on as it is: its
    certificate is then checked against 127.0.0.1. Raises ServerError when the server does not answer at the start.

        with Link(cl.server_url()) as link:
            for rtt in (0, 0.5, 1, 5, 10):
                link.rtt_ms = rtt
    """

    def __init__(self, url: str, rtt_ms: float = 0.0):
        if not isinstance(url, str):
            raise TypeError(f"url must be a str, not {type(url).__name__}")
        try:
            target = parse_url(url)
            self._target = target["path"] if url.startswith("unix:") else (target["host"], target.get("port", 6379))
        except (ValueError, KeyError):  # its text may quote a piece of the password
            rule = "redis://host:port/db, rediss://host:port/db or unix:///path"
            scheme = url.partition("://")[0] if "://" in url else ""
            raise ValueError(f"url must read {rule}, port 0 to 65535; this one's scheme is {scheme!r}") from None
        self._rtt_ms = _check.number("rtt_ms", rtt_ms, high=LONGEST)
        self.port = 0
        self.own_ms = 0.0
        self._server_url = url
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        where = f"port {self.port}" if self._process else "stopped"
        return f"<Link to {self._place}: {where}, rtt_ms={self._rtt_ms:g}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the relay and measure what it costs; return the link."""
        if self._process:
            return self
        try:
            if isinstance(self._target, str):
                family, address = socket.AF_UNIX, self._target
            else:
                with socket.create_connection(self._target, timeout=0.5) as probe:
                    family, address = probe.family, probe.getpeername()
        except OSError as error:
            raise ServerError(f"no server to link to at {self._place}: {error}") from None
        relay = f"from cachelab.lab.link import _Relay; _Relay({int(family)}, {address!r}, {os.getpid()}).run()"
        self._process = subprocess.Popen(  # its own session: the Interrupt button of a notebook must not end it
            [sys.executable, "-I", "-c", relay], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            self.port = int(self._answer())
            self._order(delay=0.0005)
            through, direct = _ping_ms([self.url, self._server_url], 50, timeout=0.5)
            self.own_ms = max(0.0, through[5] - direct[5] - 1)  # the quick tenth: a busy moment must not pass for cost
            self.rtt_ms = self._rtt_ms
        except BaseException as error:
            self.stop()
            if isinstance(error, redis.RedisError):
                raise ServerError(f"no PING through a link to {self._place}: {error}") from None
            raise
        return self

    def stop(self) -> None:
        """End the relay and with it every connection."""
        with self._lock:
            process, self._process = self._process, None
        if process:
            process.kill()  # it keeps nothing that could be lost
            with process:
                pass  # waits, and closes the pipes

    @property
    def url(self) -> str:
        """The URL to give to a client (redis:// for a server behind unix://)."""
        self._running()
        parts = urlsplit(self._server_url)
        netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.port}".removeprefix("@")
        unix = {"scheme": "redis", "path": ""} if parts.scheme == "unix" else {}
        return parts._replace(netloc=netloc, **unix).geturl()

    @property
    def rtt_ms(self) -> float:
        """The round-trip time added, in milliseconds; setting it holds for bytes that arrive from then on."""
        return self._rtt_ms

    @rtt_ms.setter
    def rtt_ms(self, value: float) -> None:
        self._rtt_ms = _check.number("rtt_ms", value, high=LONGEST)
        if self._process:
            self._order(delay=max(0.0, value - self.own_ms) / 2000)

    def measured_ms(self, n: int = 200) -> float:
        """Return the median of ``n`` PINGs through the link by a redis-py client, in milliseconds."""
        return statistics.median(_ping_ms([self.url], _check.whole("n", n, least=1), 5 + self._rtt_ms / 1000)[0])

    def added_ms(self, n: int = 200) -> float:
        """Return what the link adds: the median PING through it less the median PING beside it, taken in turns."""
        through, direct = _ping_ms([self.url, self._server_url], _check.whole("n", n, least=1), 5 + self._rtt_ms / 1000)
        return statistics.median(through) - statistics.median(direct)

    def cut(self) -> None:
        """Reset every connection, and each new one at once, until ``heal``; a frozen link is frozen no longer."""
        self._order(is_cut=True, is_frozen=False)

    def heal(self) -> None:
        """Let connections through again."""
        self._order(is_cut=False)

    def freeze(self) -> None:
        """Hold all bytes and keep the connections, until ``thaw``."""
        self._order(is_frozen=True)

    def thaw(self) -> None:
        """Release what was held."""
        self._order(is_frozen=False)

    def drip(self, bytes_per_second: float | None) -> None:
        """Pass replies on one byte at a time at this rate; None ends it."""
        rate = math.inf if bytes_per_second is None else _check.number("bytes_per_second", bytes_per_second, above=0)
        self._order(gap=1 / rate)

    def cut_after(self, n: int) -> None:
        """Let ``n`` more bytes of replies through, over all connections, then reset the one that carried the last: once."""
        self._order(left=_check.whole("n", n, least=0))

    @property
    def _place(self) -> str:
        return self._target if isinstance(self._target, str) else "{}:{}".format(*self._target)

    def _running(self) -> subprocess.Popen[bytes]:
        if not self._process:
            raise ServerError("the link is not running: use `with Link(url) as link:` or link.start()")
        return self._process

    def _order(self, **state: float) -> None:
        """Set attributes of the relay; they hold when this returns."""
        with self._lock:
            with suppress(BrokenPipeError):  # the missing answer tells
                os.write(self._running().stdin.fileno(), json.dumps(state).encode())
            self._answer()

    def _answer(self) -> bytes:
        if not (line := self._running().stdout.readline()):
            raise ServerError(f"the relay in front of {self._place} has ended: stop the link and start it again")
        return line


def _ping_ms(urls: list[str], n: int, timeout: float) -> list[list[float]]:
    """Return the times of n PINGs in milliseconds, ascending, for each URL: taken in turns on warm connections."""
    options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": timeout, "single_connection_client": True}
    times: list[list[float]] = [[] for _ in urls]
    with ExitStack() as stack:
        clients = [stack.enter_context(redis.Redis.from_url(url, **options)) for url in urls]
        for _ in range(n + 5):
            for client, taken in zip(clients, times, strict=True):
                start = time.perf_counter()
                client.ping()
                taken.append((time.perf_counter() - start) * 1000)
    return [sorted(taken[5:]) for taken in times]


class _End:
    """One socket of a connection; ``peer`` is the other."""

    def __init__(self, sock: socket.socket, is_client: bool):
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.is_client = sock, is_client
        self.peer: _End
        self.out = bytearray()  # released, not yet taken by the kernel
        self.blocked = not is_client  # until it is writable: a server's end starts while it is connecting
        self.owed = 0  # bytes read here that the peer's kernel has not taken yet
        self.last = 0.0  # latest release time of bytes for this end: they keep their order when the delay shrinks
        self.ended = self.closing = self.closed = False  # nothing more to read; to write; shut for writing
        self.watched = 0


class _Relay:
    """The loop in the relay's process: orders come by standard input, each answered by a line on standard output."""

    def __init__(self, family: int, address: object, parent: int):
        self.family, self.address, self.parent = family, address, parent
        self.delay = self.gap = 0.0  # s: each way; between dripped bytes
        self.left: int | None = None  # bytes of replies before the connection is reset
        self.is_cut = self.is_frozen = False
        self.ends: set[_End] = set()
        self.waiting: list[tuple[float, int, _End, bytes]] = []  # a heap of (release time, order, receiver, bytes)
        self.order = count()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.orders, self.all = DefaultSelector(), DefaultSelector()
        self.orders.register(0, EVENT_READ, self.obey)
        self.all.register(0, EVENT_READ, self.obey)
        self.all.register(self.listener, EVENT_READ, self.accept)

    def run(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(8192, hard)), hard))
        os.write(1, b"%d\n" % self.listener.getsockname()[1])
        while os.getppid() == self.parent:  # a forked sibling may hold the pipe open after the parent is gone
            if self.is_frozen:
                events = self.orders.select(1)
            else:
                wait = min(1.0, self.waiting[0][0] - time.perf_counter() - SPIN) if self.waiting else 1.0
                if wait > 0:
                    select.select([self.all], [], [], wait)  # a selector's own time-out is in whole milliseconds
                events = self.all.select(0)
            now = time.perf_counter()
            for key, mask in events:
                key.data(mask, now)
            while self.waiting and not self.is_frozen and self.waiting[0][0] <= time.perf_counter():
                self.release(*heapq.heappop(self.waiting)[2:])

    def obey(self, mask: int, now: float) -> None:
        if not (line := os.read(0, 4096)):
            sys.exit()
        vars(self).update(json.loads(line))
        if self.is_cut:
            for end in list(self.ends):
                self.reset(end)
        os.write(1, b"done\n")

    def accept(self, mask: int, now: float) -> None:
        try:
            client = _End(self.listener.accept()[0], True)
            server = _End(socket.socket(self.family, socket.SOCK_STREAM), False)
        except OSError:  # gone again, or out of files
            return
        client.peer, server.peer = server, client
        self.ends |= {client, server}
        if self.is_cut:
            return self.reset(client)
        server.sock.connect_ex(self.address)  # in progress: its outcome shows at the first read or write
        self.watch(client)
        self.watch(server)

    def watch(self, end: _End) -> None:
        wanted = EVENT_READ * (not end.ended and end.owed < (DRIPPED if self.gap else HELD)) | EVENT_WRITE * end.blocked
        if wanted != end.watched and end in self.ends:
            if end.watched:
                self.all.unregister(end.sock)
            if wanted:
                self.all.register(end.sock, wanted, partial(self.serve, end))
            end.watched = wanted

    def serve(self, end: _End, mask: int, now: float) -> None:
        if mask & EVENT_WRITE and end in self.ends:
            end.blocked = False
            self.flush(end)
        if mask & EVENT_READ and end in self.ends:
            self.read(end, now)

    def read(self, end: _End, now: float) -> None:
        gap = 0.0 if end.is_client else self.gap
        try:
            data = end.sock.recv(DRIPPED if gap else 2**18)
        except OSError:
            return self.reset(end)
        end.ended = not data
        end.owed += len(data)
        for piece in [data[i : i + 1] for i in range(len(data))] if gap and data else [data]:
            end.peer.last = max(now + self.delay, end.peer.last + gap)
            heapq.heappush(self.waiting, (end.peer.last, next(self.order), end.peer, piece))
        self.watch(end)

    def release(self, end: _End, data: bytes) -> None:
        if end not in self.ends:
            return
        last = False
        if data and end.is_client and self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
            last = not self.left
        end.out += data
        end.closing = not data and not last
        if not end.blocked:
            self.flush(end)
        if last:
            self.left = None
            self.reset(end)

    def flush(self, end: _End) -> None:
        try:
            sent = end.sock.send(end.out) if end.out else 0
            if end.closing and sent == len(end.out):
                end.sock.shutdown(socket.SHUT_WR)
                end.closed = True
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.reset(end)
        del end.out[:sent]
        end.peer.owed -= sent
        end.blocked = bool(end.out)
        if end.closed and end.peer.closed:
            return self.reset(end)
        self.watch(end)
        self.watch(end.peer)

    def reset(self, end: _End) -> None:
        for each in (end, end.peer):
            if each in self.ends:
                self.ends.remove(each)
                if each.watched:
                    self.all.unregister(each.sock)
                if not each.closed:  # closed without a farewell: the other side sees a reset
                    each.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.sock.close()
