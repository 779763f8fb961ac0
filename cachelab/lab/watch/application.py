"""A small application to be watched: readers and writers on one Redis, metrics on a port.

``cachelab.lab.watch.chain`` runs it as a process of its own. It reads orders from standard input,
one JSON object a line, answers each with a line, and ends when nobody holds that any more.

Sixty users are read some fifty times a second and kept for two to twenty seconds, so that those
who were loaded together are not all gone together; a few of them are written. That is what health
looks like here: about nine reads of ten are hits.
"""

import json
import logging
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import cachelab as cl
from cachelab import metrics
from cachelab.writes import WriteBehind
from cachelab.writes.worker import Worker

USERS = 60
TTL, JITTER = 20.0, 0.9  # seconds at most, and the share of them that is drawn
READERS, PAUSE = 20, 0.4  # threads, and seconds between two reads of one
WRITE_EVERY = 0.2  # seconds
SCANNERS, SCANNED = 4, 20_000  # threads, and rows of the database that nobody else reads
SCAN_PAUSE = 0.004  # seconds between two reads of a scanner
CROWD, HOT = 30, "user-1"  # readers of one id in a stampede
COOL = 0.2  # seconds after which the hot id is invalidated again
QUICK, SLOW, HEAVY = 0.005, 0.5, 0.1  # seconds of a load: usually, of a slow database, of a hot id


class Application:
    """The caches, the writes and the threads that use them, and the faults that it can have.

    Args:
        url: Of Redis.
    """

    def __init__(self, url: str):
        self.database = cl.UserDatabase(latency=QUICK, connections=40)
        self.database.fill(SCANNED)
        self.rows = cl.UserDatabase(latency=0)  # what the worker writes to
        self._url, self._lock = url, threading.Lock()
        self.cache = self._named(url)
        client = cl.connect(url, check=False)
        self.writes = metrics.register(WriteBehind(client, load=self.rows.get), "writes")
        self.worker = metrics.register(Worker(client, self.rows), "writes")
        self._over: dict[str, threading.Event] = {}
        for number in range(READERS):
            self._start("", self._read, PAUSE, number)
        self._start("", self._write, WRITE_EVERY)
        self._keep(self.worker.run, threading.Event())

    def obey(self, fault: str, on: bool) -> None:
        """Begin a fault, or end it."""
        if fault == "wrong password":
            parts = urlsplit(self._url)
            wrong = f"{parts.scheme}://:wrong@{parts.hostname}:{parts.port}{parts.path}"
            metrics.unregister(self.cache)
            self.cache.core.pending.clear()  # or it goes on probing the breaker that both share
            self.cache = self._named(wrong if on else self._url)
        elif fault == "slow database":
            self.database.latency = SLOW if on else QUICK
        elif not on:
            self._over.pop(fault).set()
        elif fault == "stuck write-behind":
            self._lock_rows(fault)
        elif fault == "scan":
            for number in range(SCANNERS):
                self._start(fault, self._scan, SCAN_PAUSE, number)
        elif fault == "stampede":
            for _ in range(CROWD):
                self._start(fault, lambda: self.cache.get(HOT), COOL / 4)
            self._start(fault, lambda: self.cache.invalidate(HOT), COOL)
        else:
            raise ValueError(f"fault must be one that the application has, not {fault!r}")

    def _named(self, url: str) -> cl.CacheAside[str]:
        client = cl.connect(url, check=False)
        cache = cl.CacheAside(client, self._load, ttl=TTL, jitter=JITTER, prefix="watched:")
        return metrics.register(cache, "users")

    def _load(self, id: str) -> str | None:
        if id == HOT and "stampede" in self._over:
            time.sleep(HEAVY)
        return self.database.get(id)

    def _read(self, number: int) -> None:
        self.cache.get(f"user-{_draws[number].randint(1, USERS)}")

    def _scan(self, number: int) -> None:
        self.cache.get(f"user-{_draws[number].randint(USERS + 1, SCANNED)}")

    def _write(self) -> None:
        self.writes.put(f"user-{_draws[0].randint(1, USERS)}", "new")

    def _lock_rows(self, fault: str) -> None:
        """Hold the database's lock, as a forgotten transaction does."""
        over, locked = self._over.setdefault(fault, threading.Event()), threading.Event()

        def hold() -> None:
            connection = sqlite3.connect(urlsplit(self.rows.url).path, timeout=60)
            connection.execute("BEGIN EXCLUSIVE")
            locked.set()
            over.wait()
            connection.close()

        self._keep(hold)
        locked.wait()

    def _start(self, fault: str, call: Callable[..., object], pause: float, *args: Any) -> None:
        """Call again and again, in a thread, until the fault is over."""
        over = self._over.setdefault(fault, threading.Event())

        def again() -> None:
            while not over.wait(pause):
                with suppress(cl.CachelabError):  # metrics count it
                    call(*args)

        self._keep(again)

    def _keep(self, call: Callable[..., object], *args: Any) -> None:
        threading.Thread(target=call, args=args, daemon=True).start()


_draws = [random.Random(number) for number in range(max(READERS, SCANNERS))]


def main() -> None:
    """Serve metrics and obey until standard input ends."""
    from prometheus_client import start_http_server

    logging.getLogger("cachelab").addHandler(logging.NullHandler())  # the metrics tell
    os.environ.pop("CACHELAB_DATABASE_URL", None)  # it locks its database: a private file
    said = json.loads(sys.stdin.readline())
    application = Application(said["url"])
    server, _ = start_http_server(0, addr="127.0.0.1")
    print(json.dumps({"port": server.server_port}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        application.obey(order["fault"], order["on"])
        print("{}", flush=True)
    os._exit(0)  # whatever its threads wait for


if __name__ == "__main__":
    main()
