"""A slow or broken network in front of a server: a relay on loopback, in a process of its own.

`relay.py` is that process.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from cachelab import _check
from cachelab._secret import Secret
from cachelab._urls import address, hide
from cachelab.errors import ServerError

RELAY = Path(__file__).with_name("relay.py")
LONGEST = 60_000  # ms
SLOWEST = 1000  # seconds between two bytes


class Link:
    """Stand between clients and a server and add milliseconds to each round trip.

    A client that connects to ``.url`` (own ``.port``; credentials, database, options as in
    ``url``) finds a PING ``rtt_ms`` slower than at ``url``. The relay's own cost, about 0.1 ms, is
    measured at the start (``.own_ms``: the PING through the link at 1 ms, less the PING beside it,
    less that 1 ms) and taken off the delay; so an rtt_ms below own_ms, 0 too, adds own_ms.
    ``measured_ms`` and ``added_ms`` say what is really reached: under load the relay needs
    processor time like all others, and past some 2 ms client and server fall idle while they wait,
    so that each waking costs them a few 0.1 ms more.

    The relay ends with ``stop()``, with the block, when the link is no longer referenced, and with
    the process that started it, however that ends. A rediss:// connection is
    passed on as it is: its certificate is then checked against 127.0.0.1.

        with Link(cl.server_url()) as link:
            for rtt in (0, 0.5, 1, 5, 10):
                link.rtt_ms = rtt

    Args:
        url: The server's.
        rtt_ms: What is added to each round trip.

    Raises:
        ServerError: The server does not answer at the start.
    """

    # Also of a link whose URL was refused: a traceback may show it.
    port = 0
    own_ms = 0.0
    _place = "nowhere"  # what may be shown of the server's URL
    _process: subprocess.Popen[bytes] | None = None
    _rtt_ms = 0.0

    def __init__(self, url: str, rtt_ms: float = 0.0) -> None:
        place, hidden = address(url), hide(url)
        del url
        if not isinstance(hidden, Secret):
            raise TypeError(f"url must be a str, not {place}")
        self._rtt_ms = _check.number("rtt_ms", rtt_ms, high=LONGEST)
        self._target = _target(hidden, place)
        self._place = place
        self._server_url = hidden
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
                family, where = socket.AF_UNIX, self._target
            else:
                with socket.create_connection(self._target, timeout=0.5) as probe:
                    family, where = probe.family, probe.getpeername()
        except OSError as error:
            raise ServerError(f"no server to link to at {self._place}: {error}") from None
        python = [sys.executable, "-I", "-S", str(RELAY)]
        arguments = [str(int(family)), json.dumps(where), str(os.getpid())]
        self._process = subprocess.Popen(
            [*python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # the Interrupt button of a notebook must not end it
        )
        self._end = weakref.finalize(self, _end, self._process, os.getpid())
        self._end.atexit = False  # the relay sees to that
        try:
            self.port = int(self._answer())
            self._order(delay=0.0005)
            through, direct = _ping_ms([self.url, self._server_url], 50, timeout=0.5)
            # The quick tenth: a busy moment must not pass for cost.
            self.own_ms = max(0.0, through[5] - direct[5] - 1)
            self.rtt_ms = self._rtt_ms
        except BaseException as error:
            self.stop()
            if isinstance(error, redis.RedisError):
                raise ServerError(f"no PING through a link to {self._place}: {error}") from None
            raise
        return self

    def stop(self) -> None:
        """End the relay and with it every connection; in a forked child do nothing to it."""
        with self._lock:
            process, self._process = self._process, None
        if process:
            self._end()

    @property
    def url(self) -> str:
        """The URL to give to a client (redis:// for a server behind unix://).

        Its repr does not show the password.
        """
        self._running()
        parts = urlsplit(self._server_url)
        user = Secret(parts.netloc.rpartition("@")[0])
        parts = parts._replace(netloc=f"{user}@127.0.0.1:{self.port}".removeprefix("@"))
        if parts.scheme == "unix":
            parts = parts._replace(scheme="redis", path="")
        return Secret(parts.geturl())

    @property
    def rtt_ms(self) -> float:
        """The round-trip time added, in milliseconds; what is set holds for bytes yet to arrive."""
        return self._rtt_ms

    @rtt_ms.setter
    def rtt_ms(self, value: float) -> None:
        self._rtt_ms = _check.number("rtt_ms", value, high=LONGEST)
        if self._process:
            self._order(delay=max(0.0, self._rtt_ms - self.own_ms) / 2000)

    def measured_ms(self, n: int = 200) -> float:
        """Return the median of ``n`` PINGs through the link by a redis-py client."""
        [through] = self._pings(n, [self.url])
        return statistics.median(through)

    def added_ms(self, n: int = 200) -> float:
        """Return what the link adds: the median PING through it less that beside it, in turns."""
        through, direct = self._pings(n, [self.url, self._server_url])
        return statistics.median(through) - statistics.median(direct)

    def cut(self) -> None:
        """Reset every connection, and each new one at once, until ``heal``.

        A frozen link is frozen no longer.
        """
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
        gap = 0.0
        if bytes_per_second is not None:
            rate = _check.number("bytes_per_second", bytes_per_second, low=1 / SLOWEST)
            gap = 1 / rate
        self._order(gap=gap)

    def cut_after(self, n: int) -> None:
        """Let ``n`` more bytes of replies through, over all connections, then reset one, once.

        That is the connection which carried the last.
        """
        self._order(left=_check.whole("n", n, least=0))

    def _pings(self, n: int, urls: list[str]) -> list[list[float]]:
        return _ping_ms(urls, _check.whole("n", n, least=1), 5 + self._rtt_ms / 1000)

    def _running(self) -> subprocess.Popen[bytes]:
        if not self._process:
            raise ServerError(
                "the link is not running: use `with Link(url) as link:` or link.start()"
            )
        return self._process

    def _order(self, **state: float) -> None:
        """Set attributes of the relay; they hold when this returns."""
        with self._lock:
            orders = self._running().stdin
            assert orders
            with suppress(BrokenPipeError):  # the missing answer tells
                os.write(orders.fileno(), json.dumps(state).encode())
            self._answer()

    def _answer(self) -> bytes:
        answers = self._running().stdout
        assert answers
        if not (line := answers.readline()):
            raise ServerError(
                f"the relay in front of {self._place} has ended: stop the link and start it again"
            )
        return line


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """End a relay; only in the process that started it."""
    if os.getpid() == owner:
        process.kill()  # it keeps nothing that could be lost
        with process:
            pass  # waits, and closes the pipes


def _target(url: str, place: str) -> str | tuple[str, int]:
    """Return where the server of a URL is to be reached: a path, or host and port."""
    try:
        if "..." in place:  # what is host, and what a password, cannot be told
            raise ValueError
        target = parse_url(url)
        if url.startswith("unix:"):
            return target["path"]
        return target["host"], target.get("port", 6379)
    except (ValueError, KeyError):  # its text may quote a piece of the password
        rule = "redis://host:port/db, rediss://host:port/db or unix:///path, port 0 to 65535"
        raise ValueError(f"url must read {rule}; this one is {place}") from None


def _ping_ms(urls: list[str], n: int, timeout: float) -> list[list[float]]:
    """Return the times of n PINGs in milliseconds, ascending, for each URL.

    They are taken in turns on warm connections.
    """
    options = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "single_connection_client": True,
    }
    times: list[list[float]] = [[] for _ in urls]
    with ExitStack() as stack:
        clients = [stack.enter_context(redis.Redis.from_url(url, **options)) for url in urls]
        for _ in range(n + 5):
            for client, taken in zip(clients, times, strict=True):
                start = time.perf_counter()
                client.ping()
                taken.append((time.perf_counter() - start) * 1000)
    return [sorted(taken[5:]) for taken in times]
