"""Where a cache is tried: a server of its own, a database that can be held, and calls that block, whatever the cache's kind."""

import asyncio
import functools
import gc
import inspect
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import redis

from cachelab.server import Server

PATIENCE = 20  # seconds until a call that does not come back counts as hung
READERS = 50


class Broken(AssertionError):
    """A promise is broken; the message says what was seen."""


class Origin:
    """A database in a dict, which counts its loads and can be held in the middle of one."""

    def __init__(self):
        self.rows: dict[str, str | None] = {"ada": "Ada", "bob": "Bob", "empty": "", "zero": "0", "null": "null"}
        self.loads: list[str] = []
        self.latency = 0.0  # seconds
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()
        self._lock = threading.Lock()

    def load(self, id: str) -> str | None:
        with self._lock:
            self.loads.append(id)
            value = self.rows.get(id)
        if isinstance(value, Exception):
            raise value
        self.entered.set()
        self.go.wait(PATIENCE)
        if self.latency:
            time.sleep(self.latency)
        return value

    def hold(self) -> None:
        """Let the next loads read their row and then wait for ``go``."""
        self.entered.clear()
        self.go.clear()


class Bench:
    """A server, an origin and the caches under trial, whose calls block, whatever kind they are."""

    def __init__(self, cache: type, server: Server):
        self.kind, self.server, self.origin = cache, server, Origin()
        self.is_async = inspect.iscoroutinefunction(getattr(cache, "get", None))
        self.client = redis.Redis.from_url(server.url, decode_responses=True)
        self.threads = ThreadPoolExecutor(4 * READERS)
        self.loop = asyncio.new_event_loop()
        self._looping = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._looping.start()

    def make(self, ttl: float = 60, missing_ttl: float = 30, url: str | None = None) -> "Blocking":
        load = functools.partial(self._in_loop_pool, self.origin.load) if self.is_async else self.origin.load

        async def build():
            return self.kind(url or self.server.url, load, ttl, missing_ttl)

        if self.is_async:
            return Blocking(self, self.run(build()))
        return Blocking(self, self.kind(url or self.server.url, load, ttl, missing_ttl))

    async def _in_loop_pool(self, function: Callable, *args):
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *args)

    def run(self, coroutine, patience: float = PATIENCE):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(patience)

    def start(self, call: Callable, *args):
        """Begin a call in another thread and return its future."""
        return self.threads.submit(call, *args)

    def warm_pool(self, cache: "Blocking") -> None:
        """Open connections first: a cold pool hides a stampede."""
        for future in [self.start(cache.get, f"warm{n}") for n in range(READERS)]:
            future.result(PATIENCE)

    def close(self) -> None:
        self.origin.go.set()
        self.client.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
        asyncio.run_coroutine_threadsafe(_cancel_others(), self.loop).result(PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._looping.join(PATIENCE)
        self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=2)  # one that swallows its cancellation is left behind


class Blocking:
    """A cache under trial: get and invalidate block and give up after PATIENCE seconds."""

    def __init__(self, trial: Bench, cache: object):
        self.trial, self.cache = trial, cache

    def get(self, id: str):
        return self._call(self.cache.get, id)

    def invalidate(self, id: str) -> None:
        self._call(self.cache.invalidate, id)

    def _call(self, method: Callable, id: str):
        if self.trial.is_async:
            return self.trial.run(method(id))
        return self.trial.threads.submit(method, id).result(PATIENCE)


@contextmanager
def bench(cache: type) -> Iterator[Bench]:
    """Set up a trial and clear it away."""
    with Server() as server:
        trial = Bench(cache, server)
        try:
            yield trial
        finally:
            trial.close()
            with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # what the cache has left open
                del trial
                gc.collect()


def expect(condition: bool, seen: str) -> None:
    if not condition:
        raise Broken(seen)


def same(seen: object, wanted: object, what: str) -> None:
    expect(seen == wanted, f"{what}: {seen!r}, not {wanted!r}")
