"""Experiments on clients: how they are made, shared, broken, and what their errors tell."""

import functools
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from statistics import median

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff, ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from cachelab import connect
from cachelab.errors import RedisUnavailable
from cachelab.lab.claims.bench import Bench, raised, trial
from cachelab.lab.claims.cases import Case, counted, instead, sampled
from cachelab.lab.measure import link, timing
from cachelab.server.server import Server


@trial
def client_from_environment(bench: Bench) -> list[Case]:
    """Clients that are connected without a password in the code."""
    before = os.environ.get("REDIS_URL")
    os.environ["REDIS_URL"] = bench.server.url
    try:
        client = bench.plain(os.environ["REDIS_URL"])
        return [counted("the URL comes from the environment", client.ping())]
    finally:
        os.environ.pop("REDIS_URL")
        if before is not None:
            os.environ["REDIS_URL"] = before


@trial
def default_address(bench: Bench) -> list[Case]:
    """The port of a client that was told none."""
    with redis.Redis() as client:
        return [counted("no port named", client.get_connection_kwargs()["port"])]


@trial
def unset_host(bench: Bench) -> list[Case]:
    """Whether an application notices that its host is not configured, or is wrong."""
    client = redis.Redis(host=os.environ.get("CACHELAB_NO_SUCH_NAME", "localhost"))
    with Server() as server:
        gone = server.url
    told = raised(functools.partial(connect, gone))
    return [
        counted("a default of localhost", client.get_connection_kwargs()["host"] != "localhost"),
        instead(counted("connect(), which asks", told is RedisUnavailable)),
    ]


@trial
def threads_share(bench: Bench) -> list[Case]:
    """Wrong answers of 1,600 that eight threads get through one client without a lock."""

    def use(thread: int) -> int:
        wrong = 0
        for number in range(200):
            bench.client.set(f"own:{thread}", number)
            wrong += bench.client.get(f"own:{thread}") != str(number)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        return [counted("8 threads, no lock", sum(pool.map(use, range(8))), 1600)]


@trial
def pooled(bench: Bench) -> list[Case]:
    """Connections that 200 calls open, 10 at a time."""
    client = bench.plain()
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: client.ping(), range(200)))
    return [counted("200 calls of 10 threads", len(client.connection_pool._in_use_connections)
            + len(client.connection_pool._available_connections), 200)]  # fmt: skip


@trial
def pool_refuses(bench: Bench) -> list[Case]:
    """Of five calls more than a pool has connections, those that are refused."""

    def refused(kind: type[redis.ConnectionPool], wait: float) -> int:
        pool = kind.from_url(bench.server.url, max_connections=10)
        taken = [pool.get_connection() for _ in range(10)]
        give_back = threading.Timer(wait, lambda: [*map(pool.release, taken)])
        give_back.start()
        with ThreadPoolExecutor(5) as threads:
            told = list(threads.map(lambda _: raised(pool.get_connection), range(5)))
        give_back.join()
        pool.disconnect()
        return sum(error is not None for error in told)

    return [
        counted("an ordinary pool", refused(redis.ConnectionPool, 0.05), 5),
        instead(counted("BlockingConnectionPool", refused(redis.BlockingConnectionPool, 0.05), 5)),
    ]


@trial
def decoded(bench: Bench) -> list[Case]:
    """The share of values that come back as they were stored, with decode_responses=True."""
    bench.plain(decode_responses=False).mset({"text": "Zoë", "picture": b"\x89PNG"})
    came = {}
    for key, value in {"text": "Zoë", "picture": b"\x89PNG"}.items():
        with suppress(UnicodeDecodeError):
            came[key] = bench.client.get(key) == value
    return [counted("a text", came.get("text", 0)), counted("a picture", came.get("picture", 0))]


@trial
def ping_first(bench: Bench) -> list[Case]:
    """A GET with a PING before it, as times of the GET alone, in turns."""
    get = functools.partial(bench.client.get, "user-1")

    def checked() -> None:
        bench.client.ping()
        get()

    turns = [(timing.sample(checked, 20), timing.sample(get, 20)) for _ in range(15)]
    ratios = [median(both) / median(one) for both, one in turns]
    return [sampled("PING, then GET", ratios, predicted=2)]


@trial
def types_offered(bench: Bench) -> list[Case]:
    """How many of hash, list, set and sorted set the server has."""
    calls = {
        "hash": lambda key: bench.client.hset(key, "field", 1),
        "list": lambda key: bench.client.rpush(key, 1),
        "set": lambda key: bench.client.sadd(key, 1),
        "zset": lambda key: bench.client.zadd(key, {"member": 1}),
    }
    for kind, call in calls.items():
        call(f"type:{kind}")
    return [counted("this server", sum(bench.client.type(f"type:{one}") == one for one in calls))]


@trial
def same_names(bench: Bench) -> list[Case]:
    """Values that are lost when two applications use one server."""

    def lost(first: str, second: str) -> int:
        bench.client.set(first, "shop")
        bench.client.set(second, "game")
        return int(bench.client.get(first) != "shop")

    ours = instead(counted("application and version in front", lost("shop:v1:u:1", "game:v1:u:1")))
    return [counted("user:123:profile in both", lost("user:123:profile", "user:123:profile")), ours]


def _warned(call: Callable[[], object]) -> int:
    """Return how many warnings a call makes."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return len(seen)


@trial
def setex_warns(bench: Bench) -> list[Case]:
    """Warnings of a SETEX, and of a SET with an expiry."""
    return [
        counted("setex", _warned(lambda: bench.client.setex("old", 60, 1))),
        instead(counted("set with ex", _warned(lambda: bench.client.set("new", 1, ex=60)))),
    ]


@trial
def zrevrange_warns(bench: Bench) -> list[Case]:
    """Warnings of a ZREVRANGE, and of what supersedes it."""
    old, new = (
        functools.partial(bench.client.zrevrange, "top", 0, 9),
        functools.partial(bench.client.zrange, "top", 0, 9, desc=True),
    )
    return [counted("zrevrange", _warned(old)), instead(counted("zrange, desc", _warned(new)))]


@trial
def expiry_kept(bench: Bench) -> list[Case]:
    """Of 100 keys with an expiry, those that still have one after a SET."""

    def left(**how: bool) -> int:
        for number in range(100):
            bench.client.set(f"ex:{number}", 1, ex=60)
            bench.client.set(f"ex:{number}", 2, **how)
        return sum(bench.client.ttl(f"ex:{number}") > 0 for number in range(100))

    return [counted("a plain SET", left(), 100), instead(counted("KEEPTTL", left(keepttl=True)))]


@trial
def counted_twice(bench: Bench) -> list[Case]:
    """What one INCR counts when its reply comes too late, with a retry and without."""

    def count(retries: int) -> int:
        client = bench.plain(
            socket_timeout=0.2,
            retry=Retry(NoBackoff(), retries),
            retry_on_error=[redis.TimeoutError],
        )
        client.set("counter", 0)
        bench.server.freeze()
        thaw = threading.Timer(0.3, bench.server.thaw)
        thaw.start()
        with suppress(redis.TimeoutError):
            client.incr("counter")
        thaw.join()
        return int(bench.client.get("counter"))

    return [
        counted("an INCR with a retry", count(1)),
        instead(counted("an INCR without, the error told", count(0))),
    ]


@trial
def caught_by_builtin(bench: Bench) -> list[Case]:
    """Of ten calls to a server that is gone, those whose error ConnectionError catches."""
    with Server() as server:
        url = server.url
    away = bench.plain(url)

    def caught(kind: type[Exception]) -> int:
        found = 0
        for _ in range(10):
            try:
                away.get("user-1")
            except kind:
                found += 1
            except Exception:
                pass
        return found

    return [
        counted("Python's ConnectionError", caught(ConnectionError), 10),
        instead(counted("redis.ConnectionError", caught(redis.ConnectionError), 10)),
    ]


@trial
def moments(bench: Bench) -> list[Case]:
    """Different moments of the third try of a hundred clients."""
    alike, apart = (
        len({kind(base=0.01).compute(2) for _ in range(100)})
        for kind in (ExponentialBackoff, ExponentialWithJitterBackoff)
    )
    return [counted("without jitter", alike, 100), counted("with jitter", apart, 100)]


@trial
def kept_of_stream(bench: Bench) -> list[Case]:
    """Of a thousand acknowledged writes, those that a stream of MAXLEN 100 still has."""
    for number in range(1000):
        bench.client.xadd("stream", {"id": number}, maxlen=100, approximate=True)
    return [counted("MAXLEN ~ 100, no worker yet", bench.client.xlen("stream"), 1000)]


@trial
def outages_outlived(bench: Bench) -> list[Case]:
    """Whether a GET that is tried three more times, within 1.5 s, outlives an outage."""
    cases = []
    with link.Link(bench.server.url) as road:
        for name, seconds in (("away for 0.2 s", 0.2), ("away for 2 s", 2.0)):
            backoff = ExponentialBackoff(base=0.1, cap=1)
            client = bench.plain(road.url, retry=Retry(backoff, 3), socket_timeout=0.1)
            client.get("user-1")
            road.cut()
            heal = threading.Timer(seconds, road.heal)
            heal.start()
            cases.append(counted(name, raised(functools.partial(client.get, "user-1")) is None))
            heal.cancel()
            heal.join()
            road.heal()
    return cases
