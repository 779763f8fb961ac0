"""Experiments on what a cache is for, and on the five lines of a cache-aside."""

import asyncio
import functools
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio
from redis.crc import key_slot

from cachelab import connect
from cachelab.cache.aside import CacheAside
from cachelab.database import UserDatabase
from cachelab.lab.claims.bench import Bench, awaited, raised, took, trial
from cachelab.lab.claims.cases import Case, counted, instead, over, part, sampled
from cachelab.lab.measure import disk, link, timing
from cachelab.server.server import Server
from cachelab.users import generate_users
from cachelab.writes.ahead import RefreshAhead


@trial
def memory_and_disk(bench: Bench) -> list[Case]:
    """A read of 4 KB as so many lookups in a dict."""
    users = dict(generate_users(1000, seed=0))
    lookup = sampled("", timing.sample(lambda: users["user-1"], 100, repeat=100))
    cold, warm = (sampled("", seconds) for seconds in disk.cold_and_warm(100))
    get = sampled("", timing.sample(lambda: bench.client.get("user-1"), 100))
    return [
        over("a dict against the disk", cold, lookup),
        over("a dict against a file that the system holds", warm, lookup),
        over("a GET against the disk", cold, get),
    ]


@trial
def inside_the_server(bench: Bench) -> list[Case]:
    """A GET's time, as the server's own clock sees it, and as its caller waits for it."""
    bench.client.set("user-1", "Ada")
    bench.client.config_resetstat()
    whole = timing.sample(lambda: bench.client.get("user-1"), 1000)
    inside = bench.client.info("commandstats")["cmdstat_get"]["usec_per_call"] / 1e6
    with bench.far(1.0) as client:
        away = timing.sample(lambda: client.get("user-1"), 40)
    return [
        counted("inside the server", inside, 1000),
        sampled("for a caller on this machine", whole),
        sampled("for a caller 1 ms further", away),
    ]


@trial
def hit_as_get(bench: Bench) -> list[Case]:
    """GETs by an async client, one at a time, as times of a sync client's, in turns."""
    bench.client.set("user-1", "Ada")

    def sync() -> float:
        return took(lambda: [bench.client.get("user-1") for _ in range(200)])

    async def ratios() -> list[float]:
        client = redis.asyncio.Redis.from_url(bench.server.url)
        ratios = []
        for _ in range(15):
            began = time.perf_counter()
            for _ in range(200):
                await client.get("user-1")
            ratios.append((time.perf_counter() - began) / sync())
        await client.aclose()
        return ratios

    return [sampled("on this machine", awaited(ratios))]


@trial
def loads_per_read(bench: Bench) -> list[Case]:
    """The loads of 200 reads, each id read ten times, and each once."""
    cases = []
    for name, count in (("each id is read ten times", 20), ("each id is read once", 200)):
        cache = CacheAside(bench.client, str, 60, prefix=f"{count}:")
        for number in range(200):
            cache.get(f"user-{number % count}")
        cases.append(counted(name, cache.stats.loads / 200, 200, predicted=count / 200))
    return cases


@trial
def miss_as_load(bench: Bench) -> list[Case]:
    """A miss before databases of three speeds."""
    cases = []
    for latency, n in ((0.002, 20), (0.05, 5), (2.0, 1)):
        with UserDatabase(latency=latency) as database:
            database.fill(n)
            cache = CacheAside(bench.client, database.get, 60, prefix=f"miss-{latency}:")
            ids = [f"user-{number}" for number in range(1, n + 1)]
            seconds = [took(functools.partial(cache.get, id)) for id in ids]
        cases.append(sampled(f"a load of {latency:g} s", seconds, predicted=latency))
    return cases


@trial
def sleeping_database(bench: Bench) -> list[Case]:
    """Loads at once, as times of pauses: these have room for all, ten connections have not."""
    with UserDatabase(latency=0.02, connections=10) as database:
        database.fill(40)

        def at_once(count: int, load: Callable[[str], object]) -> float:
            ids = [f"user-{number}" for number in range(1, count + 1)]
            with ThreadPoolExecutor(count) as pool:
                return took(lambda: list(pool.map(load, ids)))

        def times(count: int) -> list[float]:
            pause = lambda id: time.sleep(0.02)  # noqa: E731
            return [at_once(count, database.get) / at_once(count, pause) for _ in range(3)]

        return [
            sampled("one load at a time", times(1), predicted=1),
            sampled("40 loads, a database of ten connections", times(40), predicted=40 / 10),
        ]


@trial
def readers_served(bench: Bench) -> list[Case]:
    """The share of 40 readers who get a value, as one of database and Redis dies.

    The database has room for five loads at once, and refuses more.
    """
    room = threading.Semaphore(5)

    def load(id: str) -> str:
        if not room.acquire(blocking=False):
            raise LookupError("no connection is left")
        time.sleep(0.02)
        room.release()
        return id

    def served(cache: CacheAside) -> float:
        ids = [f"user-{number}" for number in range(40)]
        with ThreadPoolExecutor(40) as pool:
            told = list(pool.map(lambda id: raised(functools.partial(cache.get, id)), ids))
        return told.count(None)

    with Server() as server:
        url = server.url
    many, few = (
        served(CacheAside(connect(url, check=False), load, 60, max_loads=limit))
        for limit in (1000, 5)
    )
    users = {f"user-{number}": "Ada" for number in range(40)}
    full = CacheAside(bench.client, users.__getitem__, 60, prefix="served:")
    for id in list(users):
        full.get(id)
    users.clear()
    return [
        part("the database dies", served(full), 40),
        part("Redis dies", many, 40),
        instead(part("Redis dies, max_loads=5", few, 40)),
    ]


@trial
def loads_of_one_id(bench: Bench) -> list[Case]:
    """The loads of a thousand reads of an id: the common five lines, and CacheAside."""
    loads: list[str] = []
    users = {"user-1": "Ada"}

    def load(id: str) -> str | None:
        loads.append(id)
        return users.get(id)

    def common(id: str) -> str | None:
        value = bench.client.get(f"one:{id}")
        if value is None and (value := load(id)) is not None:
            bench.client.set(f"one:{id}", value, ex=60)
        return value

    def counts(read: Callable[[str], object], id: str) -> int:
        loads.clear()
        for _ in range(1000):
            read(id)
        return len(loads)

    ours = CacheAside(bench.client, load, 60, prefix="one:b:").get
    return [
        counted("an id that exists", counts(common, "user-1"), 1000),
        counted("an id that does not", counts(common, "nobody"), 1000),
        instead(counted("absence is remembered", counts(ours, "nobody"), 1000)),
    ]


@trial
def small_values(bench: Bench) -> list[Case]:
    """The memory of a thousand characters, as times of that of eight."""
    bench.client.mset({"small": "aB3xK9mP", "real": "x" * 1000})
    small, real = (bench.client.memory_usage(key) for key in ("small", "real"))
    return [counted("a record of 1,000 characters / one of 8", real / small)]


@trial
def thousand_users(bench: Bench) -> list[Case]:
    """The share of 100 MB that a thousand users take."""
    before = bench.client.info("memory")["used_memory"]
    bench.client.mset({f"mock:{id}": value for id, value in generate_users(1000, seed=0)})
    taken = bench.client.info("memory")["used_memory"] - before
    return [counted("1,000 users", taken / 100e6, 1000)]


@trial
def room_asked_for(bench: Bench) -> list[Case]:
    """The share of 100 MB that users ask for, few and many, by the memory of one."""
    bench.client.set("mock:large", "x" * 1000)
    large = bench.client.memory_usage("mock:large")
    return [counted(f"{n:,} users of 1,000 characters", n * large / 100e6) for n in (1000, 200_000)]


@trial
def stored_for_ever(bench: Bench) -> list[Case]:
    """Of a hundred values that a miss has stored, those that never expire."""

    def immortal(ttl: int | None) -> int:
        for number in range(100):
            bench.client.set(f"miss:{number}", "Ada", ex=ttl)
        return sum(bench.client.ttl(f"miss:{number}") == -1 for number in range(100))

    return [
        counted("set(key, value)", immortal(None), 100),
        counted("set(key, value, ex=60)", immortal(60), 100),
    ]


@trial
def truths(bench: Bench) -> list[Case]:
    """Different answers that two readers get, who miss at the same moment or come in turn."""
    rng = random.Random(0)
    together = threading.Barrier(2)

    def read(load: Callable[[], object]) -> object:
        together.wait()
        return load()

    def answers(load: Callable[[], object]) -> int:
        with ThreadPoolExecutor(2) as pool:
            return len({*pool.map(lambda _: read(load), range(2))})

    users = dict(generate_users(1, seed=0))
    cache = CacheAside(bench.client, lambda id: rng.random(), 60, prefix="truths:")
    return [
        counted("made up by each miss", answers(lambda: rng.random())),
        counted("one reader after the other", len({cache.get("user-1") for _ in range(2)})),
        instead(counted("read from a table", answers(lambda: users["user-1"]))),
    ]


@trial
def held(bench: Bench) -> list[Case]:
    """Keys in the cache after 200 reads of 20 of a thousand users."""
    users = dict(generate_users(1000, seed=0))
    cache = CacheAside(bench.client, users.get, 60, prefix="held:")
    for number in range(200):
        cache.get(f"user-{1 + number % 20}")
    return [counted("200 reads of 20 ids", len(bench.client.keys("held:*")), 200)]


@trial
def same_data(bench: Bench) -> list[Case]:
    """The share of users that two runs have alike."""

    def alike(seed: int | None) -> float:
        runs = [dict(generate_users(1000, seed=seed)) for _ in range(2)]
        return sum(runs[0][id] == runs[1][id] for id in runs[0]) / 1000

    return [
        counted("no seed", alike(None), 1000),
        instead(counted("seed=0", alike(0), 1000)),
    ]


@trial
def data_in_memory(bench: Bench) -> list[Case]:
    """Memory that 5,000 test users take at most: a dict of all, as times of one by one."""

    def peak(call: Callable[[], object]) -> int:
        tracemalloc.start()
        call()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    whole = peak(lambda: dict(generate_users(5_000, seed=0)))
    lazy = peak(lambda: sum(1 for _ in generate_users(5_000, seed=0)))
    return [counted("a dict of 5,000 / one at a time", whole / lazy)]


@trial
def sliced(bench: Bench) -> list[Case]:
    """Memory of 5,000 records worked through in slices of a list, as a share of the list's."""

    def peak(chunks: Callable[[], Iterator[list]]) -> int:
        tracemalloc.start()
        for _ in chunks():
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    def whole() -> Iterator[list]:
        yield list(generate_users(5_000, seed=0))

    def slices() -> Iterator[list]:
        data = list(generate_users(5_000, seed=0))
        for begin in range(0, len(data), 1000):
            yield data[begin : begin + 1000]

    def streamed() -> Iterator[list]:
        users = generate_users(5_000, seed=0)
        while chunk := [one for one, _ in zip(users, range(1000), strict=False)]:
            yield chunk

    all_of_it = peak(whole)
    return [
        counted("slices of a list", peak(slices) / all_of_it, 5_000),
        counted("chunks as they are made", peak(streamed) / all_of_it, 5_000),
    ]


@trial
def hidden_by_except(bench: Bench) -> list[Case]:
    """Of a slip, an interrupt and a cancellation, those that a bare except hides."""

    def bare(error: type[BaseException]) -> None:
        with suppress(BaseException):  # as an except without a name
            raise error

    def narrow(error: type[BaseException]) -> None:
        try:
            raise error
        except redis.RedisError:
            return

    kinds = (AttributeError, KeyboardInterrupt, asyncio.CancelledError)
    hidden = [sum(raised(functools.partial(one, kind)) is None for kind in kinds)
              for one in (bare, narrow)]  # fmt: skip
    return [
        counted("a bare except", hidden[0], 3),
        instead(counted("except redis.RedisError", hidden[1], 3)),
    ]


@trial
def hidden_by_net(bench: Bench) -> list[Case]:
    """Of a slip and a cancellation, those that are hidden by an except that raises again."""

    def again(error: type[BaseException]) -> None:
        try:
            raise error
        except Exception:
            raise

    def goes_on(error: type[BaseException]) -> None:
        with suppress(BaseException):
            raise error

    kinds = (AttributeError, asyncio.CancelledError)
    hidden = [sum(raised(functools.partial(one, kind)) is None for kind in kinds)
              for one in (again, goes_on)]  # fmt: skip
    return [counted("logged and raised again", hidden[0], 2)]


@trial
def none_on_error(bench: Bench) -> list[Case]:
    """Right answers of ten, while Redis refuses: users exist, and are in the database."""
    users = dict(generate_users(10, seed=0))
    with Server() as server:
        url = server.url
    away, cache = bench.plain(url), CacheAside(connect(url, check=False), users.get, 60)

    def common(id: str) -> str | None:
        try:
            return away.get(id) or users[id]
        except Exception:
            return None

    return [
        part("return None", sum(common(id) == users[id] for id in users), 10),
        instead(part("the database answers", sum(cache.get(id) == users[id] for id in users), 10)),
    ]


@trial
def calls_of_thread_safe(bench: Bench) -> list[Case]:
    """Calls that 20 threads make to a function behind functools.lru_cache, for one key."""
    calls: list[str] = []
    together = threading.Barrier(20)

    @functools.lru_cache
    def slow(key: str) -> str:
        calls.append(key)
        time.sleep(0.02)
        return key

    def reads(read: Callable[[str], object]) -> int:
        calls.clear()

        def one(_: int) -> None:
            together.wait()
            read("hot")

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(one, range(20)))
        return len(calls)

    bare = slow.__wrapped__
    ours = CacheAside(bench.client, bare, 60, prefix="safe:")
    return [counted("lru_cache", reads(slow), 20), instead(counted("CacheAside", reads(ours.get)))]


@trial
def age_of_value(bench: Bench) -> list[Case]:
    """The age of an answer, in expiries, where nobody asked for two expiries and a half."""

    def aged(cache: Any) -> float:
        cache.get("user-1")
        time.sleep(0.5)
        then = cache.get("user-1")
        return (time.time() - then) / 0.2

    load = lambda id: time.time()  # noqa: E731
    plain = aged(CacheAside(bench.client, load, ttl=0.2, jitter=0, prefix="age:a:"))
    ahead = aged(RefreshAhead(bench.client, load, ttl=0.2, grace=2, prefix="age:b:"))
    return [counted("CacheAside", plain), counted("RefreshAhead, with a grace", ahead)]


@trial
def delete_arrives(bench: Bench) -> list[Case]:
    """Of ten deletes, those that were done, through a whole network and one that is cut."""
    keys, cases = [f"del:{number}" for number in range(10)], []
    with link.Link(bench.server.url) as road:
        client = bench.plain(road.url, socket_timeout=0.1, socket_connect_timeout=0.1)
        for name in ("the network is whole", "the network is cut"):
            bench.client.mset(dict.fromkeys(keys, "old"))
            for key in keys:
                with suppress(redis.RedisError):
                    client.delete(key)
            cases.append(part(name, 10 - bench.client.exists(*keys), 10))
            road.cut()
    return cases


@trial
def nodes_of_one_key(bench: Bench) -> list[Case]:
    """The nodes of a cluster of three that have a hot key: its name alone deals it out."""
    slots = {key_slot(key) for key in (b"hot",) * 100}
    return [counted("one hot key", len({3 * slot // 16_384 for slot in slots}))]
