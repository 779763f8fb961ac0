"""Experiments on pipelines and large jobs, on a server's memory, and on measuring."""

import functools
import io
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import astuple
from typing import Any

import numpy as np
import redis
import redis.asyncio

from cachelab.lab.claims.bench import Bench, raised, took, trial
from cachelab.lab.claims.cases import Case, counted, instead, over, part, sampled
from cachelab.lab.hits import replay
from cachelab.lab.measure import timing
from cachelab.seeder import SeedReport, seed
from cachelab.server.server import Server
from cachelab.users import generate_users


@trial
def evicted_by_default(bench: Bench) -> list[Case]:
    """Keys that a full server evicts with the settings that it comes with, and with a policy."""
    evicted = bench.full.info("stats")["evicted_keys"]
    with Server(maxmemory="2mb", maxmemory_policy="allkeys-lru") as server:
        client = bench.plain(server.url)
        for number in range(2000):
            client.set(f"full:{number}", "x" * 1000)
        with_policy = client.info("stats")["evicted_keys"]
    return [counted("as it comes", evicted), instead(counted("allkeys-lru", with_policy))]


@trial
def volatile_evicts(bench: Bench) -> list[Case]:
    """Keys that volatile-ttl evicts from a full server, with an expiry and without."""
    cases = []
    for name, ex in (("keys with an expiry", 3600), ("keys without", None)):
        with Server(maxmemory="2mb", maxmemory_policy="volatile-ttl") as server:
            client = bench.plain(server.url)
            with suppress(redis.OutOfMemoryError):
                for number in range(2000):
                    client.set(f"full:{number}", "x" * 1000, ex=ex)
            cases.append(counted(name, client.info("stats")["evicted_keys"]))
    return cases


@trial
def told_limit(bench: Bench) -> list[Case]:
    """The limit that INFO tells: nothing can be a share of 0."""
    with Server(maxmemory="0") as server:
        none = bench.plain(server.url).info("memory")["maxmemory"]
    limit = bench.full.info("memory")["maxmemory"]
    return [counted("no limit set", none), counted("maxmemory 2mb", limit)]


@trial
def policies_beyond(bench: Bench) -> list[Case]:
    """Policies that the server offers and that are none of the known ones."""
    known = ("lru", "lfu", "lrm", "random", "ttl", "noeviction")
    offered = replay.offered(bench.server.url)
    return [counted("this server", sum(not one.endswith(known) for one in offered), len(offered))]


@trial
def ping_of_full(bench: Bench) -> list[Case]:
    """Of fifty values, those that a server takes which answers a PING."""
    cases = []
    for name, client in (("a healthy server", bench.client), ("a full server", bench.full)):
        assert client.ping()
        store = [functools.partial(client.set, f"new:{n}", "x" * 9000) for n in range(50)]
        cases.append(part(name, sum(raised(one) is None for one in store), 50))
    return cases


@trial
def told_of_failure(bench: Bench) -> list[Case]:
    """Whether a caller notices that a job on a full server has failed."""

    def job() -> None:
        bench.full.mset({f"job:{number}": "x" * 9000 for number in range(100)})

    def printing() -> None:
        try:
            job()
        except redis.RedisError as error:
            str(error)  # the recipe prints it, and returns as if all were well

    return [
        counted("printed, and went on", raised(printing) is not None),
        instead(counted("raised", raised(job) is not None)),
    ]


@trial
def results_of_printing(bench: Bench) -> list[Case]:
    """Messages of a job which prints its progress, on the screen and to a program; of `seed`."""
    screen = io.StringIO()

    def printing() -> object:
        with redirect_stdout(screen):
            bench.client.mset(dict(generate_users(100, seed=0)))
            return print(f"Progress: {100:.1f}% ({100}/{100} records)")

    def numbers(result: Any) -> int:
        told = astuple(result) if isinstance(result, SeedReport) else [result]
        return sum(isinstance(one, int | float) for one in told)

    report = seed(bench.client, 100, prefix="told:", ttl=60)
    returned = numbers(printing())
    return [
        counted("who looks at the screen", screen.getvalue().count("\n")),
        counted("a program that calls the job", returned),
        instead(counted("a program that calls seed", numbers(report))),
    ]


@trial
def first_sample(bench: Bench) -> list[Case]:
    """A call by time.time() before and after, as times of the median of a thousand."""

    def one_call(client: redis.Redis) -> float:
        began = time.time()
        client.get("test_key")
        return time.time() - began

    usual = sampled("", timing.sample(functools.partial(bench.client.get, "test_key"), 1000))
    first = sampled("", [one_call(bench.plain()) for _ in range(9)])
    later = sampled("", [one_call(bench.client) for _ in range(99)])
    return [
        over("a new client, as a rule", first, usual),
        over("a client that is connected, as a rule", later, usual),
    ]


@trial
def info_hit_rate(bench: Bench) -> list[Case]:
    """INFO's hit rate, as times of the application's own, which is a half."""

    def told(ttls: int) -> float:
        bench.client.config_resetstat()
        bench.client.set("there", 1)
        for number in range(100):
            bench.client.get("there" if number % 2 else "gone")
        for _ in range(ttls):
            bench.client.ttl("there")
        info = bench.client.info("stats")
        return info["keyspace_hits"] / (info["keyspace_hits"] + info["keyspace_misses"])

    return [
        counted("nobody else asks", told(0) / 0.5, 100),
        counted("a monitor asks for TTLs", told(500) / 0.5, 600),
    ]


@trial
def divisor_of_new(bench: Bench) -> list[Case]:
    """Hits and misses of a new server: the number that the hit rate is divided by."""

    def divisor() -> int:
        info = bench.client.info("stats")
        return info["keyspace_hits"] + info["keyspace_misses"]

    bench.client.config_resetstat()
    new = divisor()
    bench.client.get("user-1")
    return [counted("a new server", new), counted("after a read", divisor())]


def _speed_up(bench: Bench) -> list[tuple[float, Case, Case]]:
    """Return the distance in ms, a GET and a pipeline of a hundred, at three distances, once."""
    return bench.once("speed-up", lambda: list(_distances(bench)))


def _distances(bench: Bench) -> Iterator[tuple[float, Case, Case]]:
    bench.client.set("user-1", "Ada")

    def pipeline(client: redis.Redis) -> None:
        batch = client.pipeline(transaction=False)
        for _ in range(100):
            batch.get("user-1")
        batch.execute()

    for rtt_ms in (0.0, 0.5, 2.0):
        with ExitStack() as stack:
            client = stack.enter_context(bench.far(rtt_ms)) if rtt_ms else bench.client
            alone = timing.sample(functools.partial(client.get, "user-1"), 100)
            batch = timing.sample(functools.partial(pipeline, client), 40)
        yield rtt_ms, sampled("", alone), sampled("", batch)


@trial
def get_pipeline(bench: Bench) -> list[Case]:
    """A hundred GETs one by one, as times of one pipeline, at three distances."""
    cases = []
    each = None
    for rtt_ms, one, batch in _speed_up(bench):
        hundred = Case("", 100 * one.value, 100 * one.low, 100 * one.high, one.n)
        seen = over(_away(rtt_ms), hundred, batch)
        each = each or batch.value / 100  # close by nearly all is work
        trip = one.value - each
        model = (trip + each) / (trip / 100 + each)
        cases.append(Case(seen.name, seen.value, seen.low, seen.high, batch.n, model, rtt_ms))
    return cases


@trial
def hundred_gets(bench: Bench) -> list[Case]:
    """A pipeline of a hundred GETs, at three distances."""
    return [
        Case(_away(at), batch.value, batch.low, batch.high, batch.n, at=at)
        for at, _, batch in _speed_up(bench)
    ]


def _away(rtt_ms: float) -> str:
    return f"{rtt_ms:g} ms further" if rtt_ms else "on this machine"


@trial
def five_in_pipeline(bench: Bench) -> list[Case]:
    """Five long commands in a pipeline, as times of one, in turns."""
    script = "local n = 0 for i = 1, 500000 do n = n + i end return n"

    def run(count: int) -> float:
        batch = bench.client.pipeline(transaction=False)
        for _ in range(count):
            batch.eval(script, 0)
        return took(batch.execute)

    run(1)
    ratios = [run(5) / run(1) for _ in range(30)]
    return [sampled("five commands of some ms", ratios, predicted=5)]


@trial
def pipeline_memory(bench: Bench) -> list[Case]:
    """What 5,000 SETs hold in the caller's memory, as times of batches of 500."""
    users = {f"big:{id}": value for id, value in generate_users(5_000, seed=0)}

    def peak(size: int) -> int:
        items = list(users.items())
        tracemalloc.start()
        for begin in range(0, len(items), size):
            batch = bench.client.pipeline(transaction=False)
            for key, value in items[begin : begin + size]:
                batch.set(key, value, ex=60)
            batch.execute()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    return [counted("5,000 SETs in one pipeline", peak(5_000) / peak(500), 5_000)]


@trial
def trips_of_pipeline(bench: Bench) -> list[Case]:
    """Round trips of a hundred SETs in a pipeline: how often the server reads."""

    def reads(call: Callable[[], object]) -> int:
        before = bench.client.info("stats")["total_reads_processed"]
        call()
        return bench.client.info("stats")["total_reads_processed"] - before - 1

    def pipeline(count: int) -> Callable[[], object]:
        batch = bench.client.pipeline(transaction=False)
        for number in range(count):
            batch.set(f"trip:{number}", "aB3xK9mP")
        return batch.execute

    return [counted("100 commands", reads(pipeline(100)), 100)]


@trial
def larger_page(bench: Bench) -> list[Case]:
    """A page of 200 ids of a feed, as times of one of 20, in turns."""
    bench.client.rpush("feed", *range(1000))
    small, large = (functools.partial(bench.client.lrange, "feed", 0, n - 1) for n in (20, 200))
    turns = [(timing.sample(large, 20), timing.sample(small, 20)) for _ in range(15)]
    ratios = [float(np.median(one) / np.median(other)) for one, other in turns]
    return [sampled("a page of 200 / one of 20", ratios)]
