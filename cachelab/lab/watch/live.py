"""A server in use, to be watched for a while: readers who go on, and what can come on top."""

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import numpy as np
import pandas as pd
import redis

from cachelab import _check
from cachelab.cache.aside import CacheAside
from cachelab.clients import connect
from cachelab.lab.hits.workload import zipf
from cachelab.lab.watch import observe
from cachelab.server.server import Server

ROOM = 8 * 2**20  # bytes that the server may use
POLICIES = ("allkeys-lfu", "noeviction")
USERS, WEIGHT = 2000, 1000  # how many are read, and bytes of each
READERS, PAUSE = 2, 0.004  # threads, and seconds between two reads of one
BALLAST = 20_000  # bytes of a value that nobody reads
LAST = 20  # seconds that are shown
MORE = {"load": 4, "scan": 2, "fill": 1}  # threads of what can come on top
EVERY = 0.002  # seconds between two calls of one of those


class Live:
    """A server of its own, a cache on it, readers, and a look at its numbers each second.

    Args:
        policy: The server's maxmemory-policy, one of POLICIES.

    Attributes:
        cache: What the readers read from.
        frame: `observe.sampled`, so far.
        on: What is on top now: "load", "scan", "fill".
    """

    def __init__(self, policy: str):
        _check.choice("policy", policy, POLICIES)
        self.server = Server(maxmemory=ROOM, maxmemory_policy=policy).start()
        self.cache = CacheAside(connect(self.server.url, check=False), load=_loaded, ttl=600)
        self.frame = pd.DataFrame()
        self.on: dict[str, threading.Event] = {}
        self._client = connect(self.server.url, check=False)
        self._over = threading.Event()
        self._ids = [f"user-{number}" for number in zipf(10_000, USERS)]
        self._new = count()
        self._threads = [self._run(self._read, self._over, PAUSE) for _ in range(READERS)]
        self._threads.append(threading.Thread(target=self._look, daemon=True))
        self._threads[-1].start()

    def recent(self) -> pd.DataFrame:
        """Return the last twenty seconds: (at, number, share), shares 0 to 1, at in seconds ago."""
        df = self.frame.tail(LAST)
        if df.empty:
            return df
        shares = {"hit rate": df["hit_rate"], "memory used": df["used"] / ROOM}
        at = df["at"] - df["at"].iloc[-1]
        rows = [pd.DataFrame({"at": at, "number": name, "share": s}) for name, s in shares.items()]
        return pd.concat(rows).dropna()

    def numbers(self) -> dict[str, str]:
        """Return the numbers of the last look, for people; {} before the first.

        errors: what the cache has counted since the start.
        """
        if self.frame.empty:
            return {}
        now = self.frame.iloc[-1].fillna(0)
        errors = sum(self.cache.stats.errors_by_kind.values())
        each = ("commands", "hits", "misses", "evicted", "connections")
        return {f"{name}/s": f"{now[name]:,.0f}" for name in each} | {
            "clients": f"{now['clients']:.0f}",
            "memory": f"{now['used'] / 2**20:.1f} of {ROOM / 2**20:.0f} MB",
            "errors": f"{errors:,}",
        }

    def turn(self, what: str) -> None:
        """Begin what can come on top, "load", "scan" or "fill", or end it."""
        if over := self.on.pop(_check.choice("what", what, tuple(MORE)), None):
            over.set()
            if what == "fill":
                self._empty()
            return
        call = {"load": self._read, "scan": self._scan, "fill": self._fill}[what]
        over = self.on[what] = threading.Event()
        self._threads += [self._run(call, over, EVERY) for _ in range(MORE[what])]

    def close(self) -> None:
        """End readers and server."""
        for over in (self._over, *self.on.values()):
            over.set()
        for thread in self._threads:
            thread.join()
        self.server.stop()

    def _run(
        self, call: Callable[[], object], over: threading.Event, pause: float
    ) -> threading.Thread:
        def again() -> None:
            while not over.wait(pause):
                with suppress(redis.RedisError):  # the numbers show it
                    call()

        thread = threading.Thread(target=again, daemon=True)
        thread.start()
        return thread

    def _read(self) -> None:
        self.cache.get(random.choice(self._ids))

    def _scan(self) -> None:
        self.cache.get(f"row-{next(self._new)}")

    def _fill(self) -> None:
        self._client.set(f"ballast:{next(self._new)}", "x" * BALLAST)

    def _empty(self) -> None:
        with suppress(redis.RedisError):
            for key in self._client.scan_iter(match="ballast:*", count=1000):
                self._client.unlink(key)

    def _look(self) -> None:
        """Note what there is each second, until it is over."""

        def note(frame: pd.DataFrame) -> None:
            self.frame = frame.replace([np.inf], np.nan)
            if self._over.is_set():
                raise _Over

        with suppress(_Over, redis.RedisError):
            observe.sampled(self._client, 86_400, every=1.0, note=note)


class _Over(Exception):
    """Nobody looks any more."""


def _loaded(id: str) -> str:
    return "x" * WEIGHT
