"""Experiments on clients: how they are made, shared, broken, and what their errors tell."""

import functools
import json
import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from statistics import median

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff, ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from cachelab import connect
from cachelab.errors import RedisUnavailable
from cachelab.lab.claims.bench import Bench, awaited, raised, trial
from cachelab.lab.claims.cases import Case, counted, instead, sampled
from cachelab.lab.measure import link, timing
from cachelab.server.server import Server


@trial
def client_from_environment(bench: Bench) -> list[Case]:
    """Whether a client logs in with a password that no line of the code has."""
    before = os.environ.get("REDIS_URL")
    os.environ["REDIS_URL"] = bench.server.url  # which has the password that the server asks for
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

    turns = [(timing.sample(checked, 20), timing.sample(get, 20)) for _ in range(60)]
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
    """Values that are lost when two keys are stored, by one application and by two."""

    def lost(first: str, second: str) -> int:
        bench.client.set(first, "shop")
        bench.client.set(second, "game")
        return int(bench.client.get(first) != "shop")

    ours = instead(counted("application and version in front", lost("shop:v1:u:1", "game:v1:u:1")))
    return [
        counted("two keys of one application", lost("user:123:profile", "user:123:settings")),
        counted("one key of two applications", lost("user:123:profile", "user:123:profile")),
        ours,
    ]


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
    """How often a write counts when its reply comes too late, with a retry and without."""

    def count(retries: int, write: str = "INCRBY") -> int:
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
            client.execute_command(write, "counter", 1)
        thaw.join()
        return int(bench.client.get("counter"))

    return [
        counted("SET to 1, with a retry", count(1, "SET")),
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
            except redis.RedisError:
                pass  # not caught by that name, which is what is counted
        return found

    return [
        counted("Python's ConnectionError", caught(ConnectionError), 10),
        counted("redis.ConnectionError", caught(redis.ConnectionError), 10),
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
    """Of a thousand acknowledged writes that wait, those that a bounded stream still has."""
    cases = []
    for most in (100, 2000):
        for number in range(1000):
            bench.client.xadd(f"stream:{most}", {"id": number}, maxlen=most, approximate=True)
        cases.append(counted(f"MAXLEN ~ {most:,}", bench.client.xlen(f"stream:{most}"), 1000))
    return cases


@trial
def additions_kept(bench: Bench) -> list[Case]:
    """Additions to a JSON text that are lost, by one caller and by two who meet at each."""

    def read() -> dict:
        return json.loads(bench.client.get("cart") or "{}")

    def lost(callers: int) -> int:
        bench.client.delete("cart")
        for number in range(100 // callers):
            for who, cart in enumerate([read() for _ in range(callers)]):
                bench.client.set("cart", json.dumps(cart | {f"{who}-{number}": 1}))
        return 100 - len(read())

    def by_field() -> int:
        for number in range(100):
            bench.client.hincrby("cart:hash", f"{number % 2}-{number}", 1)
        return 100 - bench.client.hlen("cart:hash")

    return [
        counted("one caller", lost(1), 100),
        counted("two callers who meet", lost(2), 100),
        instead(counted("a command for each change", by_field(), 100)),
    ]


@trial
def product_forms(bench: Bench) -> list[Case]:
    """Bytes of a product of ten fields as a JSON text, as times of those of a hash."""
    product = {f"field-{number}": "x" * 50 for number in range(10)}
    bench.client.set("product:text", json.dumps(product))
    bench.client.hset("product:hash", mapping=product)
    text = len(bench.client.get("product:text"))
    whole = sum(len(part) for pair in bench.client.hgetall("product:hash").items() for part in pair)
    one = len(bench.client.hget("product:hash", "field-1"))
    return [counted("all of it", text / whole), counted("one field of ten", text / one)]


def _calls(bench: Bench) -> dict[float, tuple[Case, Case, Case]]:
    """Return a SET, a GET and an awaited SET at three distances, in ms, measured once."""
    return bench.once("calls", lambda: {rtt: _at_distance(bench, rtt) for rtt in (0.0, 0.2, 6.0)})


def _at_distance(bench: Bench, rtt_ms: float) -> tuple[Case, Case, Case]:
    with ExitStack() as stack:
        road = stack.enter_context(link.Link(bench.server.url, rtt_ms=rtt_ms)) if rtt_ms else None
        url = road.url if road else bench.server.url
        client = bench.plain(url)
        calls = (lambda: client.set("user-1", "Ada")), (lambda: client.get("user-1"))
        plain = [timing.sample(call, 40) for call in calls]

        async def one_by_one() -> list[float]:
            other, seconds = redis.asyncio.Redis.from_url(url), []
            await other.ping()
            for _ in range(40):
                began = time.perf_counter()
                await other.set("user-1", "Ada")
                seconds.append(time.perf_counter() - began)
            await other.aclose()
            return seconds

        name = f"{rtt_ms:g} ms further" if rtt_ms else "on this machine"
        told = (*plain, awaited(one_by_one))
        one, two, three = (replace(sampled(name, seconds), at=rtt_ms) for seconds in told)
        return one, two, three


@trial
def set_at_distances(bench: Bench) -> list[Case]:
    """A SET at three distances."""
    return [one for one, _, _ in _calls(bench).values()]


@trial
def get_at_distances(bench: Bench) -> list[Case]:
    """A GET at three distances."""
    return [one for _, one, _ in _calls(bench).values()]


@trial
def setup_one_by_one(bench: Bench) -> list[Case]:
    """A thousand SETs one by one at three distances, from forty."""
    return [_thousand(one) for one, _, _ in _calls(bench).values()]


@trial
def setup_awaited(bench: Bench) -> list[Case]:
    """A thousand awaited SETs one by one at three distances, from forty."""
    return [_thousand(one) for _, _, one in _calls(bench).values()]


def _thousand(one: Case) -> Case:
    return replace(one, value=1000 * one.value, low=1000 * one.low, high=1000 * one.high)


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
