"""Where a cache is tried: a server of its own, a database that can be held, calls that block.

They block whatever kind of cache it is.
"""

import asyncio
import gc
import inspect
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from cachelab import _locks
from cachelab.lab.contract.child import Child, Say
from cachelab.lab.contract.places import OneServer, OnSet
from cachelab.server.cluster import Cluster
from cachelab.server.sentinel import Sentinel
from cachelab.server.server import Server

PATIENCE = 20  # seconds until a call that does not come back counts as hung
READERS = 50


class Broken(AssertionError):
    """A promise is broken; the message says what was seen."""


class NotApplicable(Exception):
    """A promise is not for caches of this kind, which the message names."""


class Origin:
    """A database in a dict, which counts its loads and can be held in the middle of one.

    A row that is an exception is raised, a new one for each load.
    """

    def __init__(self) -> None:
        self.rows: dict[str, str | BaseException | None] = {
            "ada": "Ada",
            "bob": "Bob",
            "empty": "",
            "zero": "0",
            "null": "null",
        }
        self.loads: list[str] = []
        self.latency = 0.0  # seconds
        self.most = 0  # loads that ran at once
        self.patience: float = PATIENCE
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()
        self._running = 0
        self._is_held_once = False
        self._lock = _locks.lock()  # loads may be interrupted by a handler's, and by a fork

    def load(self, id: str) -> str | None:
        """Return the row of an id, or raise it."""
        return given(self.read(id))

    def read(self, id: str) -> str | BaseException | None:
        """Return the row of an id, slowly and when it may."""
        with self._lock:
            self.loads.append(id)
            self._running += 1
            self.most = max(self.most, self._running)
            value = self.rows.get(id)
            is_held = not self.go.is_set() and not (self._is_held_once and self.entered.is_set())
            if not self.entered.is_set():
                self.entered.set()
        if is_held:
            self.go.wait(self.patience)
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            self._running -= 1
        return value

    def hold(self, once: bool = False) -> None:
        """Let the next loads, or the next one alone, read their row and then wait for ``go``."""
        self._is_held_once = once
        self.entered.clear()
        self.go.clear()


class Bench:
    """A place, an origin and the caches under trial, whose calls block, whatever kind they are.

    This is a cache-aside's; the other kinds have benches that derive from it.

    Args:
        cache: The class under trial.
        place: Where it is tried.
        patience: Seconds until a call that does not come back counts as hung.
        is_async: Whether its calls are awaited, where that is known already.
    """

    name = "cache-aside"
    tells = "get"  # the method that tells whether calls are awaited

    def __init__(
        self,
        cache: type,
        place: OneServer | OnSet,
        patience: float = PATIENCE,
        is_async: bool | None = None,
    ):
        self.kind, self.place, self.origin = cache, place, Origin()
        self.patience = self.origin.patience = patience
        self.client = place.client()
        self.threads = ThreadPoolExecutor(4 * READERS)
        self._calls = ThreadPoolExecutor(4 * READERS)  # which those threads wait for
        self.loop = asyncio.new_event_loop()
        self._looping = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._looping.start()
        self.is_async = bool(is_async)
        if is_async is None:
            self.is_async = inspect.iscoroutinefunction(getattr(cache, self.tells, None))
            self.is_async = self.is_async or self.run(self._awaits())

    def make(
        self,
        ttl: float = 60,
        missing_ttl: float = 30,
        url: str | None = None,
        inner: Mapping[str, str] | None = None,
    ) -> "Blocking":
        """Return a new cache over the origin.

        inner: ``{id: another}``: the load of id reads another through the cache, and returns that.
        """
        made = Blocking(self, None)
        load: Callable = self._load if self.is_async else self.origin.load

        def nested(id: str) -> str | None:
            value = self.origin.load(id)
            return made.cache.get(inner[id]) if id in inner else value

        async def nested_async(id: str) -> str | None:
            value = await self._load(id)
            return await made.cache.get(inner[id]) if id in inner else value

        if inner:
            load = nested_async if self.is_async else nested

        made.cache = self.built(*self.arguments(url or self.place.url, load, ttl, missing_ttl))
        return made

    def built(self, *arguments: Any) -> Any:
        """Build the cache: an async one in the bench's loop."""

        async def build() -> object:
            return self.kind(*arguments)

        if self.is_async:
            return self.run(build())
        return self.kind(*arguments)

    def arguments(self, url: str, load: Callable, ttl: float, missing_ttl: float) -> Any:
        """Return what a cache of this kind is built with."""
        return url, load, ttl, missing_ttl

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the bench's loop and return its result."""
        return self.start_task(coroutine).result(self.patience)

    def start(self, call: Callable, *args: Any) -> Future:
        """Begin a call in another thread and return its future."""
        return self.threads.submit(call, *args)

    def start_task(self, coroutine: Any) -> Future:
        """Begin a coroutine in the bench's loop and return its future, which can be cancelled."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, method: Callable, *args: Any) -> Future:
        """Begin a call that a thread of `start` waits for."""
        return self._calls.submit(method, *args)

    def start_read(self, cache: "Blocking", id: str = "ada") -> Future:
        """Begin a read that loads, and return its future when its load has read the row."""
        reader = self.start(cache.get, id)
        if not self.origin.entered.wait(self.patience):
            raise Broken("the read of a cold key loads nothing")
        return reader

    def in_a_child(self, work: Callable[[Say], object]) -> str:
        """Run a function in a forked child and return the first that it says."""

        def told(say: Say) -> None:
            try:
                work(lambda text: say(f"said {text}"))
            except BaseException as error:  # SystemExit too: the cache is a stranger's
                say(f"a call raised {error!r}")

        with Child(told) as child:
            try:
                heard = child.hear(self.patience)
            except EOFError:
                raise Broken(f"the process has ended, with status {child.kill()}") from None
        expect(heard.startswith("said "), heard)
        return heard.removeprefix("said ")

    def warm_pool(self, cache: "Blocking") -> None:
        """Open connections first: a cold pool hides a stampede."""
        for future in [self.start(cache.get, f"warm{n}") for n in range(READERS)]:
            future.result(self.patience)

    def called(self) -> Any:
        """Return what a call of a new cache returns, of a kind that is not known."""
        try:
            cache = self.kind(*self.arguments(self.place.url, self.origin.load, 60, 30))
        except Exception:  # it wants an async load, or cannot be made at all
            self.is_async = True
            cache = self.kind(*self.arguments(self.place.url, self._load, 60, 30))
        return cache.get("ada")

    def is_for(self, kind: str) -> None:
        """Leave the trial unless the cache is of this kind, "plain", "async" or "cache-aside"."""
        if kind == "cache-aside" != self.name:
            raise NotApplicable(f"a {self.name}")
        if kind in ("plain", "async") and (kind == "async") != self.is_async:
            raise NotApplicable("an async cache" if self.is_async else "a plain cache")

    def close(self) -> None:
        self.origin.go.set()
        self.client.close()
        for pool in (self.threads, self._calls):
            pool.shutdown(wait=False, cancel_futures=True)
        asyncio.run_coroutine_threadsafe(_cancel_others(), self.loop).result(self.patience)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._looping.join(self.patience)
        self.loop.close()

    async def _load(self, id: str) -> str | None:
        loop = asyncio.get_running_loop()
        return given(await loop.run_in_executor(self._calls, self.origin.read, id))

    async def _awaits(self) -> bool:
        """Say whether what `get` returns is to be awaited, whatever it looks like."""
        answer = self.called()
        for end in ("cancel", "close"):
            if inspect.isawaitable(answer) and hasattr(answer, end):
                getattr(answer, end)()
                break
        self.client.flushall()
        self.origin.loads.clear()
        self.origin.entered.clear()
        return inspect.isawaitable(answer)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=2)  # one that swallows its cancellation is left behind


class Blocking:
    """A cache under trial: its calls block, and give up when patience ends."""

    def __init__(self, trial: Bench, cache: Any):
        self.trial, self.cache = trial, cache

    def get(self, id: str) -> Any:
        return self._call(self.cache.get, id)

    def invalidate(self, id: str) -> None:
        self._call(self.cache.invalidate, id)

    def put(self, id: str, value: str | None) -> Any:
        return self._call(self.cache.put, id, value)

    def _call(self, method: Callable, *arguments: Any) -> Any:
        if self.trial.is_async:
            return self.trial.run(method(*arguments))
        return self.trial.call(method, *arguments).result(self.trial.patience)


@contextmanager
def bench(
    cache: type,
    patience: float = PATIENCE,
    on: Cluster | Sentinel | None = None,
    kind: type[Bench] = Bench,
) -> Iterator[Any]:
    """Set up a trial, on the bench of a kind, and clear it away."""
    with _place(on) as place:
        trial = kind(cache, place, patience)
        try:
            yield trial
        finally:
            trial.close()
            with warnings.catch_warnings(
                action="ignore", category=ResourceWarning
            ):  # what the cache has left open
                del trial
                gc.collect()


@contextmanager
def _place(on: Cluster | Sentinel | None) -> Iterator[OneServer | OnSet]:
    if on:
        yield OnSet(on)
        return
    with Server() as server:
        yield OneServer(server)


def given(row: str | BaseException | None) -> str | None:
    """Return a row, or raise a new exception like the one that it is."""
    if isinstance(row, BaseException):
        raise type(row)(*row.args)
    return row


def expect(condition: bool, seen: str) -> None:
    if not condition:
        raise Broken(seen)


def same(seen: object, wanted: object, what: str) -> None:
    expect(seen == wanted, f"{what}: {seen!r}, not {wanted!r}")
