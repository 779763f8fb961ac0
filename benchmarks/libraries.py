"""The same stampede, stale-set and outage runs, and the contract, for CacheAside and its rivals.

    make setup EXTRAS=benchmarks
    .venv/bin/python benchmarks/libraries.py    ten minutes or so; writes libraries.csv and .json

Every library gets the guard that its documentation offers against a stampede, JSON instead of
pickle where it lets us choose, and the same short time-outs (0.2 s) where it has a setting for
them; CONFIGURATION below says which.

Rows of the table: library, run, measure, value. A read is served or lost; "lost" counts reads that
ended in an error or without the database's value, and times are those of reads that were served:
who loses a read at once is not quick. A value is empty where there is none: a time of no read, a
promise that is not for this kind of cache.

In an outage reads arrive at a fixed rate whatever becomes of those before them (an open loop), and
their time counts from when they were due, so that all whom a frozen server holds up are seen.
"""

import argparse
import importlib.metadata
import inspect
import json
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
from aiocache import Cache as Aio
from aiocache import cached_stampede
from aiocache.serializers import JsonSerializer
from cashews import Cache as Cash
from dogpile.cache import make_region

import cachelab as cl
from cachelab.lab import contract
from cachelab.lab.contract import trial as trials
from cachelab.lab.draw import figures
from cachelab.lab.faults import outage

FOLDER = Path(__file__).parent
READERS = 200
ROUNDS = 20
RATE = 500  # reads a second in the outage run
AWAY = (1.0, 3.0)  # seconds from and until which the server is dead, or frozen
SECONDS = 6.0  # in which reads arrive
DATABASE = 0.005  # seconds a load takes in the outage run
LEASE = inspect.signature(cl.CacheAside).parameters["lease"].default

CONFIGURATION = {
    "CacheAside": f"connect(), lease {LEASE:g} s",
    "AsyncCacheAside": f"connect_async(), lease {LEASE:g} s",
    "dogpile.cache": "redis backend, get_or_create, distributed_lock, lock_timeout 10 s, "
    "socket timeouts 0.2 s, JSON",
    "cashews": "@cache(lock=True, protected by default), suppress errors (default), "
    "socket_timeout 0.2 s, pool of 200, 1 s to wait for it",
    "aiocache": "@cached_stampede(lease=10), JsonSerializer, timeout 1 s",
}


class CacheAside(cl.CacheAside):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(cl.connect(url, check=False), load=load, ttl=ttl, missing_ttl=missing_ttl)


class AsyncCacheAside(cl.AsyncCacheAside):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(cl.connect_async(url), load=load, ttl=ttl, missing_ttl=missing_ttl)


class Dogpile:
    def __init__(self, url, load, ttl, missing_ttl):
        self.load = load
        self.region = make_region(
            serializer=lambda value: json.dumps(value).encode(), deserializer=json.loads
        ).configure(
            "dogpile.cache.redis",
            expiration_time=ttl,
            arguments={
                "url": url,
                "redis_expiration_time": max(1, int(ttl)),
                "distributed_lock": True,
                "thread_local_lock": False,
                "lock_timeout": 10,
                "socket_timeout": 0.2,
                "socket_connect_timeout": 0.2,
            },
        )

    def get(self, id):
        return self.region.get_or_create(id, lambda: self.load(id))

    def invalidate(self, id):
        self.region.delete(id)


class Cashews:
    def __init__(self, url, load, ttl, missing_ttl):
        self.cache = Cash()
        self.cache.setup(
            url,
            client_side=False,
            socket_timeout=0.2,
            socket_connect_timeout=0.2,
            max_connections=200,
            wait_for_connection_timeout=1,
        )

        @self.cache(ttl=ttl, key="{id}", lock=True)
        async def get(id: str):
            return await load(id)

        self._get = get

    async def get(self, id):
        return await self._get(id)

    async def invalidate(self, id):
        await self.cache.delete(id)


class Aiocache:
    def __init__(self, url, load, ttl, missing_ttl):
        server = urlsplit(url)
        where = {
            "endpoint": server.hostname,
            "port": server.port,
            "password": server.password,
            "timeout": 1,
        }
        self.cache = Aio(Aio.REDIS, serializer=JsonSerializer(), **where)

        @cached_stampede(
            lease=10,
            ttl=ttl,
            cache=Aio.REDIS,
            serializer=JsonSerializer(),
            key_builder=lambda f, id: id,
            **where,
        )
        async def get(id):
            return await load(id)

        self._get = get

    async def get(self, id):
        return await self._get(id)

    async def invalidate(self, id):
        await self.cache.delete(id)


LIBRARIES = {
    "CacheAside": CacheAside,
    "AsyncCacheAside": AsyncCacheAside,
    "dogpile.cache": Dogpile,
    "cashews": Cashews,
    "aiocache": Aiocache,
}


Measures = dict[str, float]


def stampede(cache: type, rounds: int = 5) -> Measures:
    """200 readers of one cold key whose load takes 0.1 s: the median of some rounds."""
    rows = []
    for _ in range(rounds):
        with trials.bench(cache) as trial:
            one = trial.make()
            trial.warm_pool(one)
            trial.origin.latency = 0.1
            reads = crowd(one.get, trial.origin.rows["ada"])
            loads = trial.origin.loads.count("ada")
            served = reads[reads["outcome"] == "right"]
            p99 = served["seconds"].quantile(0.99)
            rows.append({"loads": loads, "lost": len(reads) - len(served), "p99_seconds": p99})
    return pd.DataFrame(rows).median().to_dict()


def crowd(get: Callable, right: str) -> pd.DataFrame:
    """Read one key in READERS threads at once; return the frame of `outage.run`."""
    start = threading.Barrier(READERS)
    reads: list[outage.Read] = []

    def read() -> None:
        start.wait()
        began = time.perf_counter()
        try:
            outcome = "right" if get("ada") == right else "wrong"
        except Exception as error:  # whatever reaches the reader is what is measured
            outcome = type(error).__name__
        reads.append((began, time.perf_counter() - began, outcome))

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return pd.DataFrame(reads, columns=outage.COLUMNS)


def stale_set(cache: type, rounds: int = ROUNDS) -> Measures:
    """A load that is overtaken by an update and its invalidation: how many leave the old value."""
    stale = 0
    with trials.bench(cache) as trial:
        one = trial.make()
        for number in range(rounds):
            id = f"id{number}"
            trial.origin.rows[id] = "old"
            trial.origin.hold()
            reader = trial.start(one.get, id)
            trial.origin.entered.wait(trials.PATIENCE)
            trial.origin.rows[id] = "new"
            one.invalidate(id)
            trial.origin.go.set()
            reader.result(trials.PATIENCE)
            stale += one.get(id) != "new"
    return {"rounds": rounds, "stale": stale}


def away(cache: type, break_it: str, mend_it: str, seconds: float = SECONDS) -> Measures:
    """Reads arrive while the server is dead, or frozen, and after it."""
    begin, end = AWAY
    with trials.bench(cache) as trial:
        one = trial.make()
        rows = trial.origin.rows = {f"id{n}": f"value {n}" for n in range(50)}
        for id in rows:
            one.get(id)
        trial.origin.latency = DATABASE
        events = {begin: getattr(trial.server, break_it), end: getattr(trial.server, mend_it)}
        reads = outage.run_open(one.get, rows, seconds, events, rate=RATE)
    return apart(reads)


def apart(reads: pd.DataFrame) -> Measures:
    """Return what an outage did to the reads that were due in it, and how many later ones it cost.

    Times are those of served reads, from when they were due.
    """
    begin, end = AWAY
    inside = reads[reads["began"].between(begin, end, inclusive="left")]
    served = inside[inside["outcome"] == "right"]["seconds"]
    after = reads[reads["began"] >= end]
    return {
        "due": len(inside),
        "served": len(served),
        "lost": len(inside) - len(served),
        "lost_after": int((after["outcome"] != "right").sum()),
        "p50_seconds": served.quantile(0.5),
        "p99_seconds": served.quantile(0.99),
        "slowest_seconds": served.max(),
    }


def judged(cache: type) -> Measures:
    """The contract: 1 for a promise held, 0 for a broken one, nan for one that does not apply."""
    df = contract.check(cache).set_index("promise")
    applies = ~df["seen"].str.startswith(contract.NOT_APPLICABLE)
    return df["held"].astype(float).where(applies).to_dict()


RUNS: dict[str, Callable[[type], Measures]] = {
    "stampede": stampede,
    "stale set": stale_set,
    "server killed": lambda cache: away(cache, "kill", "restart"),
    "server frozen": lambda cache: away(cache, "freeze", "thaw"),
    "contract": judged,
}


def shown(run: str, measures: Measures) -> str:
    """Return what a run found, in words."""
    if run != "contract":
        return ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
    applied = [held for held in measures.values() if not math.isnan(held)]
    return f"{sum(applied):.0f} of {len(applied)} held"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=FOLDER, help="where the two files go")
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the libraries log every refused command
    rows = []
    for library in args.only:
        for run in args.runs:
            measures = RUNS[run](LIBRARIES[library])
            print(f"{library:16} {run:14} {shown(run, measures)}", flush=True)
            rows += [(library, run, measure, value) for measure, value in measures.items()]
    frame = pd.DataFrame(rows, columns=["library", "run", "measure", "value"])
    frame.to_csv(args.into / "libraries.csv", index=False, float_format="%.4g", lineterminator="\n")
    packages = ("redis", "hiredis", "dogpile.cache", "cashews", "aiocache")
    with cl.Server() as server:  # of the kind that was measured
        cl.connect(server.url)
        environment = figures.environment()
    facts = {
        "configuration": CONFIGURATION,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "environment": environment,
    }
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    (args.into / "libraries.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
