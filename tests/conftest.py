"""Shared parts: a real server for each test module, clients on it, and no skipping where everything should be installed."""

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Iterator

import pytest
import redis

import cachelab as cl


def pytest_addoption(parser):
    parser.addoption(
        "--cache", metavar="MODULE:CLASS", help="judge this cache by the contract suite, and run nothing else"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--cache"):
        items[:] = [item for item in items if item.name.startswith("test_promise[Sync")]


@pytest.fixture(scope="module")
def server() -> Iterator["cl.Server"]:
    """A private server, one for each test module."""
    with cl.Server() as server:
        yield server


@pytest.fixture
def client(server) -> Iterator[redis.Redis]:
    """The shared client of that server, which holds nothing when a test begins."""
    client = cl.connect(server.url)
    client.flushall()
    yield client
    client.connection_pool.disconnect()


@pytest.fixture
def aclient(server, client):
    """The asyncio client of that server; run its tests with the fixture run_async."""
    return cl.connect_async(server.url)


@pytest.fixture
def run_async(aclient) -> Callable[[Coroutine], object]:
    """Run a coroutine in an event loop of its own, then close what the asyncio client opened there."""

    async def whole(coroutine: Coroutine):
        try:
            return await coroutine
        finally:
            await aclient.connection_pool.disconnect()

    return lambda coroutine: asyncio.run(whole(coroutine))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where CACHELAB_REQUIRE_ALL is set (CI), a test that would be skipped for want of a part fails instead."""
    report = yield
    if report.skipped and os.environ.get("CACHELAB_REQUIRE_ALL") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though everything is required here: {report.longrepr[2]}"
    return report


class _Awaited:
    """An AsyncCacheAside in an event loop of its own, called from threads as its synchronous twin is."""

    def __init__(self, url: str, timeout: float, **options):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        for name in ("load", "load_many"):
            if function := options.get(name):
                options[name] = functools.partial(asyncio.to_thread, function)
        self.client = cl.connect_async(url, timeout=timeout)
        self.cache = cl.AsyncCacheAside(self.client, **options)

    def __getattr__(self, name):
        if name == "stats":
            return self.cache.stats
        return lambda *args: self._run(getattr(self.cache, name)(*args))

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def close(self) -> None:
        self._run(self.client.connection_pool.disconnect())
        self._run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(params=["sync", "async"])
def make_cache(request, server, client, monkeypatch):
    """A function that makes a cache of either kind on a server; its load may block, its calls may come from threads.

    patient: give Redis more time than a crowd of readers on a busy machine can take from it.
    """
    made = []

    def make(load, url: str = server.url, ttl: float = 60, patient: bool = False, **options):
        timeout = 10 if patient else 0.2
        if patient:
            monkeypatch.setattr("cachelab.flights.BUDGET", 20.0)
        if request.param == "sync":
            return cl.CacheAside(cl.connect(url, check=False, timeout=timeout), load=load, ttl=ttl, **options)
        made.append(_Awaited(url, timeout, load=load, ttl=ttl, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def together():
    """Run a function in n threads at once and return what each returned or raised."""

    def run(n: int, function, *args) -> list:
        start, outcomes = threading.Barrier(n), []

        def one():
            start.wait()
            try:
                outcomes.append(function(*args))
            except Exception as error:
                outcomes.append(error)

        threads = [threading.Thread(target=one) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    return run
