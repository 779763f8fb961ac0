"""What writes cost and lose: against the database, with workers and servers killed, read ahead.

    .venv/bin/python benchmarks/writes.py [--database postgresql://…] [--only kills servers]

Five parts: `costs` a write acknowledged, against the same write straight to the database; `applies`
rows a second and how far a row lags behind its put; `servers` killed (-9) under no persistence,
everysec and always; `kills` of workers at failpoints, in the forms that lose or double too; `ahead`
RefreshAhead against CacheAside on notebook 08's workload, with a dead database, and what a hit
costs. What is compared is interleaved in one run; a ratio is that of medians with its 95 %
interval, paired by round. The databases are private SQLite files, one of them 2 ms away, and what
is named: there rows and messages called benchmark… are written, and removed at the end.
"""

import argparse
import asyncio
import inspect
import itertools
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import hiredis
import pandas as pd
import redis
from sqlalchemy import inspect as tables_of
from sqlalchemy import text

import cachelab as cl
from cachelab.lab import kills, outage, stampede, timing, writing
from cachelab.lab.contract.child import Child
from cachelab.writes import (
    AsyncRefreshAhead,
    AsyncWriteBehind,
    RefreshAhead,
    Worker,
    WriteAround,
    WriteBehind,
    WriteThrough,
)
from cachelab.writes.stream import Message

TARGETS = {"RefreshAhead.get": 1.10, "AsyncRefreshAhead.get": 1.10}
CALLS = 100  # of what takes microseconds, in one round
WRITES = 20  # of what may take milliseconds
ROOM = 10**7  # messages, so that no stream of these is ever full
VALUE = "aB3xK9mP"
IDS = [f"benchmark-{n}" for n in range(100)]
STREAM = "benchmark"
AWAY = "SQLite 2 ms away"
DISKS = {
    "no persistence": {},
    "everysec": {"appendonly": "yes", "appendfsync": "everysec"},
    "always": {"appendonly": "yes", "appendfsync": "always"},
}


def main() -> None:
    parts = {part.__name__: part for part in (costs, applies, servers, workers, ahead)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", help="a PostgreSQL URL, to be measured beside SQLite")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--writes", type=int, default=10_000, help="that workers apply")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run on the clock")
    parser.add_argument("--rate", type=float, default=500.0, help="writes a second, for the lag")
    parser.add_argument("--kills", type=int, default=20, help="of workers, in each form")
    arguments = parser.parse_args()
    print(f"redis-py {redis.__version__}, hiredis {hiredis.__version__}, n={arguments.rounds}")
    for part in arguments.only:
        print(f"\n{inspect.getdoc(parts[part])}\n")
        parts[part](arguments)


def costs(arguments: argparse.Namespace) -> None:
    """Writes acknowledged, against the same writes straight to the database."""
    with databases(arguments.database) as opened, cl.Server() as server:
        client = cl.connect(server.url)
        for name, database in opened.items():
            cache = cl.CacheAside(client, load=database.get, ttl=60, prefix=f"{name}:")
            forms = {
                f"straight to {name}": database.put,
                "WriteAround.put": WriteAround(cache, database.put).put,
                "WriteThrough.put": WriteThrough(cache, database.put).put,
                "WriteBehind.put": WriteBehind(client, "costs", max_length=ROOM).put,
            }
            variants = {each: partial(put_some, put) for each, put in forms.items()}
            show(timing.compare(variants, rounds=arguments.rounds), WRITES)
        asyncio.run(costs_async(server.url, arguments.rounds))


async def costs_async(url: str, rounds: int) -> None:
    client = cl.connect_async(url)
    writes = AsyncWriteBehind(client, "costs", max_length=ROOM)

    async def one_by_one() -> None:
        for id in IDS[:WRITES]:
            await writes.put(id, VALUE)

    async def at_once() -> None:
        await asyncio.gather(*(writes.put(id, VALUE) for id in IDS[:WRITES]))

    variants = {"AsyncWriteBehind.put": one_by_one, f"{WRITES} of them at once": at_once}
    show(await timing.compare_async(variants, rounds=rounds), WRITES)
    await client.connection_pool.disconnect()


def applies(arguments: argparse.Namespace) -> None:
    """Rows that workers apply a second; how long after its put a row is committed, at a rate."""
    rows = []
    with databases(arguments.database) as opened, cl.Server(maxmemory="1gb") as server:
        for (name, database), count in itertools.product(opened.items(), (1, 2)):
            rate = drained(server.url, database, arguments.writes, count)
            lags = lagging(server.url, database, arguments.seconds, arguments.rate, count)
            p50, p99 = (round(1000 * lags.quantile(q)) for q in (0.5, 0.99))
            rows.append((name, count, rate, len(lags), p50, p99))
    columns = ["database", "workers", "rows a second", f"writes at {arguments.rate:g} a second"]
    print(pd.DataFrame(rows, columns=[*columns, "lag p50 ms", "p99 ms"]).to_string(index=False))


def drained(url: str, database: cl.UserDatabase, count: int, workers: int) -> int:
    """Return how many rows a second workers apply that find so many writes."""
    client = cl.connect(url)
    writes = WriteBehind(client, STREAM, max_length=ROOM)
    for n in range(count):
        writes.put(f"benchmark-{n}", VALUE)
    with working(url, database, workers) as begin:
        began = begin()
        while writes.length():
            time.sleep(0.002)
        return round(count / (time.perf_counter() - began))


def lagging(
    url: str, database: cl.UserDatabase, seconds: float, rate: float, workers: int
) -> "pd.Series[float]":
    """Return the seconds from each put to the commit of its row, of puts at a steady rate."""
    writes = WriteBehind(cl.connect(url), STREAM, max_length=ROOM)
    lags: list[float] = []
    with working(url, database, workers, lags) as begin:
        start = begin()
        for n in range(round(rate * seconds)):
            time.sleep(max(0.0, start + n / rate - time.perf_counter()))
            writes.put(f"benchmark-{n}", VALUE)
        while writes.length():
            time.sleep(0.01)
    return pd.Series(lags)


class Timed(Worker):
    """A worker that notes how long ago what it has just committed was put."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lags: list[float] = []

    def _acknowledge(self, messages: Sequence[Message]) -> None:
        now = time.time()
        self.lags += [now - one.order[0] / 1000 for one in messages]
        super()._acknowledge(messages)


@contextmanager
def working(
    url: str, database: cl.UserDatabase, workers: int, lags: list[float] | None = None
) -> Iterator[Callable[[], float]]:
    """Run workers, a process each; yield what has them begin. Their lags are there at the end."""

    def work(say: Callable[[str], None]) -> None:
        there = cl.UserDatabase(database.url, database.latency)
        worker = Timed(cl.connect(url), there, STREAM)
        os.kill(os.getpid(), signal.SIGSTOP)
        worker.run()
        say(json.dumps(worker.lags))

    with ExitStack() as stack:
        team = [stack.enter_context(Child(work)) for _ in range(workers)]
        for child in team:
            os.waitpid(child.pid, os.WUNTRACED)  # it is ready

        def begin() -> float:
            for child in team:
                os.kill(child.pid, signal.SIGCONT)
            return time.perf_counter()

        yield begin
        for child in team:
            os.kill(child.pid, signal.SIGTERM)
            told = json.loads(child.hear(60))
            if lags is not None:
                lags += told


def servers(arguments: argparse.Namespace) -> None:
    """A server killed (-9) under eight writers. Only a power cut takes what is not fsynced.

    Where fsync=True under everysec is quicker than eight writes a second, the server has answered
    WAITAOF before its fsync, as Valkey 9.1 does (redis/redis pull request 13793).
    """
    rows = []
    for disk, config in DISKS.items():
        for fsync in (False, True) if config else (False,):
            with cl.Server(maxmemory="1gb", **config) as server:
                rows.append(flooded(server, disk, fsync, arguments.seconds))
    print(pd.DataFrame(rows).to_string(index=False))


def flooded(server: cl.Server, disk: str, fsync: bool, seconds: float) -> dict[str, object]:
    """Write until the server is killed, bring it back, and count what it has."""
    made: dict[redis.Redis, WriteBehind[str]] = {}
    numbers = itertools.count()

    def put(client: redis.Redis) -> None:
        if client not in made:
            made[client] = WriteBehind(client, STREAM, max_length=ROOM, fsync=fsync)
        try:
            made[client].put(f"benchmark-{next(numbers)}", VALUE)
        except cl.RedisUnavailable as error:
            raise redis.ConnectionError from error  # which ends a writer

    acknowledged, seen = writing.flood(server, put, seconds)
    recovered = cl.connect(server.url).xlen(f"{{{STREAM}}}:stream")
    return {
        "appendfsync": disk,
        "fsync=True": fsync,
        "acknowledged": acknowledged,
        "a second": round(acknowledged / seconds),
        "recovered": recovered,
        "lost": max(0, acknowledged - recovered),
        "bytes not fsynced, p50": seen["bytes"].median(),
        "max": seen["bytes"].max(),
    }


def workers(arguments: argparse.Namespace) -> None:
    """Workers killed (-9) before and after COMMIT and XACK: acknowledged, lost, applied twice."""
    fates = [kills.killed(form, arguments.kills) for form in kills.FORMS]
    print(pd.DataFrame(fates).to_string(index=False))


def ahead(arguments: argparse.Namespace) -> None:
    """RefreshAhead on notebook 08's workload; ten seconds without a database; a hit."""
    with cl.Server() as server:
        crowds(server.url, arguments.seconds)
        outages(server.url)
        hits(server.url, arguments.rounds)
        asyncio.run(hits_async(server.url, arguments.rounds))


def crowds(url: str, seconds: float) -> None:
    """Print what readers of one hot key have of each, one after the other."""
    runs = {}
    with databases(None) as opened:
        database = opened["SQLite"]
        database.latency = stampede.LOAD
        for technique, make in techniques(url, stampede.TTL).items():
            runs[technique] = stampede.run(technique, make, database.get, seconds)
    table = stampede.ladder(runs, seconds)
    table["loads"] = [(df["event"] == "load").sum() for df in runs.values()]
    table["loads waited for"] = [stampede.waited_for(df) for df in runs.values()]
    table["extra loads %"] = 100 * (table["loads"] / table["loads"].iloc[0] - 1)
    columns = ["reads", "loads", "extra loads %", "loads waited for", "readers wait %"]
    print(table[[*columns, "p50 ms", "p99 ms", "oldest answer s"]].round(2).to_string())


def techniques(url: str, ttl: float, grace: float = 60.0) -> dict[str, stampede.Make]:
    """Return what makes a reader's ``get`` of a load: of each cache, without jitter."""
    client = cl.connect(url, timeout=5)
    how = {"ttl": ttl, "jitter": 0, "lease": 1.0}
    return {
        "CacheAside": lambda load: cl.CacheAside(client, load, **how, prefix="aside:").get,
        "RefreshAhead": lambda load: RefreshAhead(client, load, **how, grace=grace).get,
    }


def outages(url: str, dead: float = 10.0, ttl: float = 2.0) -> None:
    """Print what readers get of known ids while the database is dead, and how old it is."""
    rows = []
    for technique, make in techniques(url, ttl).items():
        alive, ages = threading.Event(), []

        def load(id: str, alive: threading.Event = alive) -> str:
            if not alive.is_set():
                raise ConnectionError("the database is dead")
            return repr(time.perf_counter())

        get = make(load)

        def read(id: str, get: stampede.Load = get, ages: list[float] = ages) -> str:
            ages.append(time.perf_counter() - float(get(id) or "nan"))
            return VALUE

        alive.set()
        for id in IDS:
            read(id)
        events = {1.0: alive.clear, 1.0 + dead: alive.set}
        reads = outage.run(read, dict.fromkeys(IDS, VALUE), dead + 2, events)
        during = reads[reads["began"].between(1.0, 1.0 + dead)]
        served = during["outcome"] == "right"
        rows.append(
            {
                "database dead 10 s": technique,
                "reads": len(during),
                "served": served.sum(),
                "failed": (~served).sum(),
                "oldest answer s": round(max(ages), 2),
                "slowest ms": round(1000 * during["seconds"].max(), 1),
            }
        )
    print(f"\n{pd.DataFrame(rows).to_string(index=False)}\n")


def hits(url: str, rounds: int) -> None:
    """Compare a hit with the commands that it sends."""
    client = cl.connect(url)
    users = RefreshAhead(client, load=lambda id: VALUE, ttl=3600, grace=3600)
    users.get(IDS[0])

    def get_and_pttl() -> None:
        pipeline = client.pipeline(transaction=False)
        pipeline.get("ahead:" + IDS[0])
        pipeline.pttl("ahead:" + IDS[0])
        pipeline.execute()

    variants = {
        "GET and PTTL, one trip": get_and_pttl,
        "bare GET": partial(client.get, "ahead:" + IDS[0]),
        "RefreshAhead.get": partial(users.get, IDS[0]),
    }
    show(timing.compare({name: many(call) for name, call in variants.items()}, rounds=rounds))


async def hits_async(url: str, rounds: int) -> None:
    client = cl.connect_async(url)

    async def load(id: str) -> str:
        return VALUE

    async def get_and_pttl() -> None:
        pipeline = client.pipeline(transaction=False)
        pipeline.get("ahead:" + IDS[0])
        pipeline.pttl("ahead:" + IDS[0])
        await pipeline.execute()

    users = AsyncRefreshAhead(client, load=load, ttl=3600, grace=3600)
    await users.get(IDS[0])
    variants = {
        "GET and PTTL, awaited": get_and_pttl,
        "bare awaited GET": partial(client.get, "ahead:" + IDS[0]),
        "AsyncRefreshAhead.get": partial(users.get, IDS[0]),
    }
    many = {name: many_async(call) for name, call in variants.items()}
    show(await timing.compare_async(many, rounds=rounds))
    await client.connection_pool.disconnect()


@contextmanager
def databases(postgresql: str | None) -> Iterator[dict[str, cl.UserDatabase]]:
    """Open private SQLite files, one 2 ms away, and the PostgreSQL database if one was named."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cachelab-writes-"))
        urls = {"SQLite": f"sqlite:///{folder}/near.db", AWAY: f"sqlite:///{folder}/away.db"}
        if postgresql:
            urls["PostgreSQL"] = postgresql
        opened = {
            name: stack.enter_context(cl.UserDatabase(url, latency=0)) for name, url in urls.items()
        }
        opened[AWAY].latency = 0.002
        try:
            yield opened
        finally:
            for database in opened.values():
                forget(database)


def forget(database: cl.UserDatabase) -> None:
    """Remove what was written for the measurements: a named database keeps what else it has."""
    with database.transaction() as connection:
        tables = set(tables_of(connection).get_table_names())
        connection.execute(text("DELETE FROM cachelab_users WHERE id LIKE 'benchmark-%'"))
        for table in tables & {"cachelab_applied", "cachelab_versions"}:
            connection.execute(text(f"DELETE FROM {table} WHERE stream = :name"), {"name": STREAM})


def put_some(put: Callable[[str, str], object]) -> None:
    for id in IDS[:WRITES]:
        put(id, VALUE)


def many(call: Callable[[], object]) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(CALLS):
            call()

    return calls


def many_async(call: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    async def calls() -> None:
        for _ in range(CALLS):
            await call()

    return calls


def show(times: pd.DataFrame, calls: int = CALLS) -> None:
    """Print a line a variant; the first variant is what the others are compared with."""
    for name, row in timing.summary(times).iterrows():
        each = row.p50 / calls
        interval = f"({row.ratio_low:.2f} to {row.ratio_high:.2f})"
        target = f", target {TARGETS[name]:g}" if name in TARGETS else ""
        print(
            f"{name:28}{each * 1e6:8.0f} us, {1 / each:9,.0f} a second, "
            f"{row.ratio:6.3f} {interval} times{target}"
        )
    print()


if __name__ == "__main__":
    main()
