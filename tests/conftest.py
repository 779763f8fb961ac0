"""Shared parts: a real server for each test module, clients on it, no skipping in CI."""

import asyncio
import functools
import importlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
import redis
from xdist.scheduler import LoadScopeScheduling

import cachelab as cl

PATIENT = 10.0  # seconds for a call, where it is no matter of time and a machine may stand still


def pytest_addoption(parser):
    parser.addoption(
        "--cache",
        metavar="MODULE:CLASS",
        help="judge this cache by the contract suite, and run nothing else",
    )
    parser.addoption(
        "--patience",
        metavar="SECONDS",
        type=float,
        default=20,
        help="how long a call of a cache under trial may take before it counts as hung",
    )
    parser.addoption(
        "--crossings",
        action="store_true",
        help="try also what is tried by hand: the asyncio flavour on the cluster, the other behind "
        "Sentinel",
    )


def pytest_configure(config):
    if name := config.getoption("--cache"):
        sys.path.insert(0, "")
        if wrong := cannot_be_judged(name):
            raise pytest.UsageError(f"--cache {name}: {wrong}")
        config.args = [str(Path(__file__).with_name(judges(name)[0]))]


def pytest_collection_modifyitems(config, items):
    if name := config.getoption("--cache"):
        _, tests = judges(name)
        items[:] = [item for item in items if item.name.startswith(f"test_promise[{tests}-")]


def pytest_xdist_auto_num_workers() -> int:
    """Say how many run side by side: twice as many as processors, for most tests mostly wait."""
    return min(2 * (os.cpu_count() or 1), MOST_WORKERS)


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)


class Scheduling(LoadScopeScheduling):
    """What one worker of pytest-xdist does by itself: a file's tests share its servers.

    In some files less is shared. What has most tests begins first, what is alone fills the end.
    """

    def _split_scope(self, nodeid: str) -> str:
        if "postgres" in nodeid:
            return "postgres"  # one database for all
        path, _, test = nodeid.partition("::")
        for shared in SHARED.get(Path(path).name, ()):
            if found := re.search(shared, test):
                return f"{path} {found[0]}"
        return path


MOST_WORKERS = 8
_CONTRACT = [r"a?sync-(cluster|sentinel)", ".+"]  # a set, or a server of the test's own
SHARED = {
    "test_contract.py": _CONTRACT,
    "test_contract_writes.py": _CONTRACT,
    "test_notebooks.py": [r"\[\d\d[a-z]?_\w+\]"],  # a notebook, which runs once
}


def judges(name: str) -> tuple[str, str]:
    """Return the file that judges what MODULE:CLASS names, and how its tests of it begin."""
    from cachelab.lab.contract import kind_of

    kind = kind_of(named(name))
    if kind == "cache-aside":
        return "test_contract.py", "Sync"
    return "test_contract_writes.py", OF_A_KIND[kind]


OF_A_KIND = {"write-behind": "Behind", "write-through": "Through", "refresh-ahead": "Ahead"}


CROSSINGS = ["sync-cluster", "async-sentinel"]  # each half of each pair, as CI has time for
OTHER_CROSSINGS = ["async-cluster", "sync-sentinel"]


def pytest_generate_tests(metafunc):
    every = CROSSINGS + (OTHER_CROSSINGS if metafunc.config.getoption("--crossings") else [])
    if "crossing" in metafunc.fixturenames:
        metafunc.parametrize("crossing", every, scope="module")
    for name, kind in {"on_cluster": "cluster", "behind_sentinel": "sentinel"}.items():
        if name in metafunc.fixturenames:
            flavours = [one.partition("-")[0] for one in every if one.endswith(kind)]
            metafunc.parametrize(name, flavours)


def named(name: str) -> type:
    """Return the class that MODULE:CLASS names."""
    module, _, cache = name.partition(":")
    return getattr(importlib.import_module(module), cache)


def cannot_be_judged(name: str) -> str:
    """Return why what MODULE:CLASS names is no class to try, "" if it is one.

    It is imported in a child first: who knows what that does.
    """
    from cachelab.lab.contract.child import Child

    def look(say):
        try:
            say("" if callable(named(name)) else "it must be a class")
        except BaseException as error:
            say(f"it cannot be imported ({type(error).__name__}: {error})")

    if not re.fullmatch(r"[^:]+:[^:]+", name):
        return "it must read MODULE:CLASS, as my_module:MyCache"
    with Child(look) as child:
        try:
            return child.hear(60)
        except (EOFError, TimeoutError):
            return "importing it ends the process, or does not end"


@pytest.fixture(scope="module")
def server() -> Iterator["cl.Server"]:
    """A private server, one for each test module."""
    with cl.Server() as server:
        yield server


@pytest.fixture
def client(server) -> Iterator[redis.Redis]:
    """The shared client of that server, which holds nothing when a test begins."""
    client = cl.connect(server.url, timeout=PATIENT)
    client.flushall()
    yield client
    client.connection_pool.disconnect()


@pytest.fixture
def aclient(server, client):
    """The asyncio client of that server; run its tests with the fixture run_async."""
    return cl.connect_async(server.url, timeout=PATIENT)


@pytest.fixture
def run_async(aclient) -> Callable[[Coroutine], object]:
    """Run a coroutine in an event loop of its own, then close what the client opened there."""

    async def whole(coroutine: Coroutine):
        try:
            return await coroutine
        finally:
            await aclient.connection_pool.disconnect()

    return lambda coroutine: asyncio.run(whole(coroutine))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where CACHELAB_REQUIRE_ALL is set (CI), fail a test that is skipped for want of a part."""
    report = yield
    if (
        report.skipped
        and os.environ.get("CACHELAB_REQUIRE_ALL")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, though everything is required here: {report.longrepr[2]}"
    return report


async def disconnected(client) -> None:
    """Close what a shared asyncio client has opened in this event loop."""
    pool = getattr(client, "connection_pool", None)  # a cluster has one for each node
    await (pool.disconnect() if pool else client.aclose())
    await asyncio.sleep(0.01)  # transports close a turn later


class Awaited:
    """An asyncio cache in an event loop of its own, called from threads as its twin is."""

    def __init__(self, url: str, timeout: float = 0.2, kind=cl.AsyncCacheAside, **options):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        for name in ("load", "load_many"):
            if function := options.get(name):
                options[name] = functools.partial(asyncio.to_thread, function)
        self.client = cl.connect_async(url, timeout=timeout)
        self.cache = kind(self.client, **options)

    def __getattr__(self, name):
        if name == "stats":
            return self.cache.stats
        return lambda *args: self.run(getattr(self.cache, name)(*args))

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    async def _end(self) -> None:
        """Do what asyncio.run does at its end."""
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await disconnected(self.client)
        await self.loop.shutdown_default_executor()

    def close(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()


@pytest.fixture(params=["sync", "async"])
def make_cache(request, server, client, monkeypatch):
    """A function that makes a cache of either kind on a server.

    Its load may block, its calls may come from threads.

    patient: give Redis more time than a crowd of readers or a machine that stands still can take
    from it; not where it will be silent, for then it is the 0.2 s of a call in use that count.
    kinds: the classes of the two kinds.
    """
    made = []
    aside = cl.CacheAside, cl.AsyncCacheAside

    def make(
        load, url: str = server.url, ttl: float = 60, patient: bool = True, kinds=aside, **options
    ):
        options = {"prefix": ""} | options
        timeout = PATIENT if patient else 0.2
        if patient:
            monkeypatch.setattr("cachelab.cache.gate.BUDGET", 2 * PATIENT)
        if request.param == "sync":
            client = cl.connect(url, check=False, timeout=timeout)
            return kinds[0](client, load=load, ttl=ttl, **options)
        made.append(Awaited(url, timeout, kinds[1], load=load, ttl=ttl, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def when_all_wait(cache, readers: int, go: threading.Event) -> None:
    """Let a load go on when all readers but the one that loads wait for it."""

    def look():
        while cache.stats.waits < readers - 1:
            time.sleep(0.001)
        go.set()

    threading.Thread(target=look, daemon=True).start()


def at_best(holds: Callable[[], bool]) -> bool:
    """Say whether what takes little time holds, at the third go at the latest.

    A machine that stands still spoils one of them, what is wrong spoils all.
    """
    return any(holds() for _ in range(3))


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
