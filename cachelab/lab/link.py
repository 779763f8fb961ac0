"""A slow or broken network in front of a server: a relay on loopback, in a process of its own (`_relay.py`)."""

import json
import math
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from cachelab import _check
from cachelab.errors import ServerError

RELAY = Path(__file__).with_name("_relay.py")
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
        relay = [sys.executable, "-I", "-S", RELAY, str(int(family)), json.dumps(address), str(os.getpid())]
        self._process = subprocess.Popen(  # its own session: the Interrupt button of a notebook must not end it
            relay, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
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
