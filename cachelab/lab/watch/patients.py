"""A program that can be set up wrongly: a shop's pages, read through a cache by many threads.

``python -m cachelab.lab.watch.patients`` takes orders on its standard input, a line each: a set-up
with the URL of a server to run on, or how many requests to serve; it answers with a line of what it
saw itself.
"""

import asyncio
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

WORKERS = 16  # threads
SHELF = 10  # products on a page
RATES = 3  # prices of a product, each to be converted
MENUS = 10
TRIP = 0.001  # seconds to the server and back
STEP = 500  # entries of one pipeline when the cache is filled


@dataclass(frozen=True)
class Setup:
    """How the program, and the server that it has for itself, are set up; by default well.

    Attributes:
        seed: Of the order in which pages are asked for.
        shelves: Of ten products each; a request shows one.
        archive: Entries that are there already, and that nobody reads.
        passing: Entries a request reads and stores that nobody asks for again.
        room_kb: What the server may hold above what it needs itself, 0 for 256 MB in all.
        policy: The server's maxmemory-policy.
        ttl: That an entry is stored with, None for none.
        unit: That the program gives it in, "s" or "ms".
        is_indexed: Whether the program knows the names on a shelf, or asks for them by pattern.
        keeps_rates: Whether it keeps the exchange rate in the process, or reads it for each price.
        pool: Connections.
        batch: Commands in a pipeline.
        is_shared: Whether all requests use one client, or each makes its own.
        menu_bytes: Of the menu, which each page shows.
        awaits: Whether the coroutine that stores is awaited.
        names_repeat: Whether a product has the same key on each request.
        seconds: That the requests of an order are spread over, at least.
    """

    seed: int = 0
    shelves: int = 100
    archive: int = 0
    passing: int = 0
    room_kb: int = 0
    policy: str = "allkeys-lfu"
    ttl: int | None = 600
    unit: str = "s"
    is_indexed: bool = True
    keeps_rates: bool = True
    pool: int = WORKERS
    batch: int = 100
    is_shared: bool = True
    menu_bytes: int = 2000
    awaits: bool = True
    names_repeat: bool = True
    seconds: float = 0.0


class Far(redis.Connection):
    """A connection to a server that is a millisecond away."""

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        time.sleep(TRIP)
        super().send_packed_command(*arguments, **options)


class Program:
    """The shop: each page shows a shelf's products and a menu, all through the cache.

    Args:
        url: Of the server.
        setup: How it is set up.
    """

    def __init__(self, url: str, setup: Setup) -> None:
        self.url = url
        self.setup = setup
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.shelves = list(range(setup.shelves))
        random.Random(setup.seed).shuffle(self.shelves)
        self.client = self._client(setup.pool)
        self.batch = STEP
        self._open()
        self._fill()
        self.batch = setup.batch

    def serve(self, first: int, requests: int) -> dict[str, Any]:
        """Serve so many requests with all workers, and return what the program saw of it."""
        self.counts.clear()
        self.errors.clear()
        numbers = iter(range(first, first + requests))
        begins = time.monotonic()
        waits: list[float] = []

        def work() -> None:
            while (number := self._next(numbers)) is not None:
                due = begins + self.setup.seconds * (number - first) / requests
                time.sleep(max(0.0, due - time.monotonic()))
                began = time.perf_counter()
                self._page(number)
                waits.append(time.perf_counter() - began)

        team = [threading.Thread(target=work) for _ in range(WORKERS)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        return {
            "requests": requests,
            "workers": WORKERS,
            "calls": self.counts["calls"],
            "loads": self.counts["loads"],
            "errors": dict(self.errors),
            "waits": waits,
        }

    def _next(self, numbers: Iterator[int]) -> int | None:
        with self.lock:
            return next(numbers, None)

    def _page(self, number: int) -> None:
        """Show a page: what it needs is read, what is missing loaded and stored."""
        shelf = self.shelves[number % len(self.shelves)]
        with self._connected() as client:
            names = [f"menu:{shelf % MENUS}", *self._products(client, shelf)]
            if not self.setup.names_repeat:
                names = [f"{name}:{number}" for name in names]
            names += [f"visitor:{number}:{part}" for part in range(self.setup.passing)]
            rates = [] if self.setup.keeps_rates else ["rate:eur"] * (RATES * SHELF)
            found = self._send(client, (("GET", name) for name in names + rates))
            missing = dict.fromkeys(
                name for name, value in zip(names + rates, found, strict=True) if value is None
            )
            if missing:
                self._count(loads=len(missing))
                self._store(client, missing)

    def _products(self, client: redis.Redis, shelf: int) -> list[str]:
        """Return the names of what stands on a shelf."""
        if self.setup.is_indexed:
            return [f"shelf:{shelf}:{place}" for place in range(SHELF)]
        (names,) = self._send(client, [("KEYS", f"shelf:{shelf}:*")])
        return list(names or [])

    def _store(self, client: redis.Redis, names: Iterable[str]) -> None:
        names = list(names)
        storing = self._stored(client, names)
        if self.setup.awaits:
            asyncio.run(storing)
        else:
            self._count(calls=len(names))  # so the program believes

    async def _stored(self, client: redis.Redis, names: Iterable[str]) -> None:
        setup = self.setup
        flag = () if setup.ttl is None else ({"s": "EX", "ms": "PX"}[setup.unit], setup.ttl)
        commands = (("SET", name, self._load(name), *flag) for name in names)
        self._send(client, commands)

    def _load(self, name: str) -> str:
        """Return what the database has."""
        return "x" * (self.setup.menu_bytes if name.startswith("menu:") else 1000)

    def _send(self, client: redis.Redis, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Send commands in pipelines; what is refused is counted, and None."""
        replies: list[Any] = []
        commands = iter(commands)
        while some := list(islice(commands, self.batch)):
            self._count(calls=len(some))
            block = client.pipeline(transaction=False)
            for command in some:
                block.execute_command(*command)
            try:
                replies += block.execute(raise_on_error=False)
            except redis.RedisError as error:
                replies += [error] * len(some)
        refused = [one for one in replies if isinstance(one, Exception)]
        with self.lock:
            self.errors.update(type(one).__name__ for one in refused)
        return [None if isinstance(one, Exception) else one for one in replies]

    def _count(self, **counts: int) -> None:
        with self.lock:
            self.counts.update(counts)

    def _client(self, pool: int) -> redis.Redis:
        connections = redis.BlockingConnectionPool.from_url(
            self.url,
            max_connections=pool,
            timeout=60,
            socket_timeout=60,
            decode_responses=True,
            connection_class=Far,
            driver_info=None,
        )
        return redis.Redis(connection_pool=connections)

    @contextmanager
    def _connected(self) -> Iterator[redis.Redis]:
        """Give the client that a request uses."""
        if self.setup.is_shared:
            yield self.client
            return
        own = self._client(1)
        try:
            yield own
        finally:
            own.connection_pool.disconnect()

    def _open(self) -> None:
        """Open what connections the program will keep, so that no request does."""
        pool = self.client.connection_pool
        connections = [pool.get_connection() for _ in range(min(self.setup.pool, WORKERS))]
        for connection in connections:
            pool.release(connection)
        if self.setup.room_kb:
            used = self.client.info("memory")["used_memory"]
            self.client.config_set("maxmemory", used + 1024 * self.setup.room_kb)

    def _fill(self) -> None:
        """Store the archive, then what the pages show."""
        names = [f"order:{number}" for number in range(self.setup.archive)]
        names += [f"menu:{number}" for number in range(MENUS)] + ["rate:eur"]
        names += [f"shelf:{shelf}:{place}" for shelf in self.shelves for place in range(SHELF)]
        for at in range(0, len(names), STEP):
            self._store(self.client, names[at : at + STEP])


def main() -> int:
    """Obey until standard input ends."""
    program: Program | None = None
    first = 0
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, dict):
            if program:
                program.client.connection_pool.disconnect()
            program, first = Program(order.pop("url"), Setup(**order)), 0
            print("{}", flush=True)
        elif program:
            print(json.dumps(program.serve(first, order)), flush=True)
            first += order
    return 0


if __name__ == "__main__":
    sys.exit(main())
