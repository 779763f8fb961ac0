"""Experiments on watching a server, on what a user may do, and on expiries that hits renew."""

import asyncio
import functools
import io
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from secrets import token_hex
from typing import Any

from cachelab import metrics
from cachelab.cache.aside import CacheAside
from cachelab.lab.claims.bench import Bench, awaited, raised, trial
from cachelab.lab.claims.cases import Case, counted, instead, over, sampled
from cachelab.lab.measure import timing
from cachelab.lab.watch import rights


def printing(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Print how long each call took, as recipes do."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        began = time.time()
        result = await function(*args, **kwargs)
        print(f"{function.__name__} took {time.time() - began:.3f} seconds")
        return result

    return wrapper


@trial
def calls_noted(bench: Bench) -> list[Case]:
    """Calls of three that leave a time behind: of a coroutine, of a function, of one that fails."""
    seconds: list[float] = []

    async def coroutine() -> None:
        await asyncio.sleep(0)

    async def fails() -> None:
        raise ConnectionError("on purpose")

    calls: list[Callable[[], Any]] = [coroutine, bench.client.ping, fails]

    @contextmanager
    def recorded() -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds.append(time.perf_counter() - began)

    async def printed() -> None:
        for call in calls:
            with suppress(TypeError, AttributeError, ConnectionError):
                await printing(call)()

    async def noted() -> None:
        for call in calls:
            with suppress(ConnectionError), recorded():
                result = call()
                if asyncio.iscoroutine(result):
                    await result

    with redirect_stdout(io.StringIO()) as lines:
        awaited(printed)
    awaited(noted)
    return [
        counted("printed", len(lines.getvalue().splitlines()), 3),
        instead(counted("recorded, in `finally`", len(seconds), 3)),
    ]


@trial
def series_of_metrics(bench: Bench) -> list[Case]:
    """Series that a registry has after reads of a thousand ids."""
    from prometheus_client import CollectorRegistry, Counter, generate_latest

    def series(registry: CollectorRegistry) -> int:
        lines = generate_latest(registry).decode().splitlines()
        return sum(not line.startswith("#") for line in lines)

    by_cache, by_id = CollectorRegistry(), CollectorRegistry()
    cache = CacheAside(bench.client, str, 60, prefix="series:")
    metrics.register(cache, "series", by_cache)
    reads = Counter("reads", "Reads of a cache.", ["id"], registry=by_id)
    for number in range(1000):
        cache.get(f"user-{number}")
        reads.labels(f"user-{number}").inc()
    return [
        counted("labels of caches and outcomes", series(by_cache), 1000),
        counted("a label for each id", series(by_id), 1000),
    ]


@trial
def needless_commands(bench: Bench) -> list[Case]:
    """Of four commands that a cache never sends, those that its user may."""
    bench.client.mset({"mine:1": "Ada", "orders:1": "a pen"})
    commands = "GET orders:1", "DEL orders:1", "KEYS *", "CONFIG GET maxmemory"
    password = token_hex(16)
    limits = rights.cache_rules("mine:")
    bench.client.execute_command("ACL SETUSER", "shop", "reset", "on", f">{password}", *limits)
    shop = bench.plain(f"redis://shop:{password}@127.0.0.1:{bench.server.port}")

    def allowed(client: Any) -> int:
        assert client.get("mine:1") == "Ada"
        sent = [functools.partial(client.execute_command, *one.split()) for one in commands]
        return sum(raised(one) is None for one in sent)

    return [
        counted("who has the server's password", allowed(bench.client), len(commands)),
        instead(counted("a user of rights.cache_rules", allowed(shop), len(commands))),
    ]


@trial
def test_key(bench: Bench) -> list[Case]:
    """A GET of a test key, as times of what an application waits for."""
    bench.client.mset({"test_key": "1", "large": "x" * 4_000_000})

    def page() -> None:
        for _ in range(11):
            bench.client.get("test_key")

    times = [
        sampled("", timing.sample(call, 30))
        for call in (
            functools.partial(bench.client.get, "test_key"),
            page,
            functools.partial(bench.client.get, "large"),
        )
    ]
    return [
        over("a page of eleven trips", times[0], times[1]),
        over("a value of 4 MB", times[0], times[2]),
    ]


@trial
def age_of_renewed(bench: Bench) -> list[Case]:
    """The oldest of ten answers, half a life apart, as times of the expiry.

    The key is aged by its own expiry, which is shortened: nobody has to wait.
    """
    ttl, step = 60_000, 31_000

    def oldest(is_renewed: bool) -> float:
        age, most = 0, 0
        for _ in range(10):
            if bench.client.get("renewed") is None:
                bench.client.set("renewed", "Ada", px=ttl)
                age = 0
            elif is_renewed:
                bench.client.pexpire("renewed", ttl)
            most = max(most, age)
            bench.client.pexpire("renewed", bench.client.pttl("renewed") - step)
            age += step
        bench.client.delete("renewed")
        return most / ttl

    return [
        counted("each hit renews it", oldest(True), 10),
        instead(counted("it runs from the load on", oldest(False), 10)),
    ]


@trial
def limit_told(bench: Bench) -> list[Case]:
    """Servers, of one, whose INFO tells a limit that its memory can be a share of."""

    def told(client: Any) -> int:
        return int(client.info("memory")["maxmemory"] > 0)

    limit = bench.client.config_get("maxmemory")["maxmemory"]
    bench.client.config_set("maxmemory", 0)
    try:
        unlimited = told(bench.client)
    finally:
        bench.client.config_set("maxmemory", limit)
    return [counted("no limit is set", unlimited), counted("a limit is set", told(bench.full))]
