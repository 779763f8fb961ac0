"""The same stampede, stale-set and outage runs for CacheAside and three well-known libraries, and the contract for all.

    make setup EXTRAS=benchmarks
    .venv/bin/python benchmarks/libraries.py            about six minutes; writes libraries.csv and .json beside this file

Every library gets the guard that its documentation offers against a stampede, JSON instead of pickle where it lets us choose,
and the same short time-outs (0.2 s) where it has a setting for them; CONFIGURATION below says which. Rows of the table:
library, run, measure, value. "lost" counts reads that ended in an error or without the database's value.
"""

import importlib.metadata
import json
import logging
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from aiocache import Cache as Aio
from aiocache import cached_stampede
from aiocache.serializers import JsonSerializer
from cashews import Cache as Cash
from dogpile.cache import make_region

import cachelab as cl
from cachelab.lab import contract, figures
from cachelab.lab import trial as trials

FOLDER = Path(__file__).parent
READERS = 200
ROUNDS = 20
WORKERS = 20
DATABASE = 0.005  # seconds a load takes in the outage run

CONFIGURATION = {
    "CacheAside": "connect(), lease 10 s",
    "AsyncCacheAside": "connect_async(), lease 10 s",
    "dogpile.cache": "redis backend, get_or_create, distributed_lock, lock_timeout 10 s, socket timeouts 0.2 s, JSON",
    "cashews": "@cache(lock=True, protected by default), suppress errors (default), socket_timeout 0.2 s, pool of 200, 1 s to wait for it",
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
        where = {"endpoint": server.hostname, "port": server.port, "password": server.password, "timeout": 1}
        self.cache = Aio(Aio.REDIS, serializer=JsonSerializer(), **where)

        @cached_stampede(
            lease=10, ttl=ttl, cache=Aio.REDIS, serializer=JsonSerializer(), key_builder=lambda f, id: id, **where
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


def stampede(cache: type) -> dict[str, float]:
    """200 readers of one cold key whose load takes 0.1 s: loads, reads lost and the slowest, the median of five runs."""
    rows = []
    for _ in range(5):
        with trials.bench(cache) as trial:
            one = trial.make()
            trial.warm_pool(one)
            trial.origin.latency = 0.1
            start, seconds, values = threading.Barrier(READERS), [], []

            def read(one=one, start=start, seconds=seconds, values=values):
                start.wait()
                began = time.perf_counter()
                try:
                    values.append(one.get("ada"))
                except Exception:
                    values.append(None)
                seconds.append(time.perf_counter() - began)

            crowd(read)
            loads = trial.origin.loads.count("ada")
            rows.append({"loads": loads, "lost": values.count(None), "p99_seconds": float(np.quantile(seconds, 0.99))})
    return pd.DataFrame(rows).median().to_dict()


def crowd(call) -> None:
    threads = [threading.Thread(target=call) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def stale_set(cache: type) -> dict[str, float]:
    """A load that is overtaken by an update and its invalidation, in 20 rounds: how many leave the old value behind."""
    stale = 0
    with trials.bench(cache) as trial:
        one = trial.make()
        for number in range(ROUNDS):
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
    return {"rounds": ROUNDS, "stale": stale}


def outage(cache: type, break_it: str, mend_it: str) -> dict[str, float]:
    """20 workers read for six seconds; from the first to the third second the server is dead, or frozen."""
    with trials.bench(cache) as trial:
        one = trial.make()
        trial.origin.rows = {f"id{n}": f"value {n}" for n in range(50)}
        for id in trial.origin.rows:
            one.get(id)
        trial.origin.latency = DATABASE
        began, reads = time.perf_counter(), []

        def work(worker: int) -> None:
            number = worker
            while (start := time.perf_counter() - began) < 6:
                id = f"id{(number := number + 7) % 50}"
                try:
                    good = one.get(id) == trial.origin.rows[id]
                except Exception:
                    good = False
                reads.append((start, time.perf_counter() - began - start, good))
                time.sleep(0.002)

        workers = [threading.Thread(target=work, args=(n,)) for n in range(WORKERS)]
        for worker in workers:
            worker.start()
        time.sleep(1)
        getattr(trial.server, break_it)()
        time.sleep(2)
        getattr(trial.server, mend_it)()
        for worker in workers:
            worker.join()
        frame = pd.DataFrame(reads, columns=["start", "seconds", "good"])
        during = frame[(frame.start >= 1) & (frame.start < 3)]
        return {
            "served": int(during.good.sum()),
            "lost": int((~frame.good).sum()),
            "p99_seconds": float(during.seconds.quantile(0.99)),
            "slowest_seconds": float(frame.seconds.max()),
        }


def main() -> None:
    logging.disable(logging.CRITICAL)  # the libraries log every refused command
    rows = []
    for name, cache in LIBRARIES.items():
        runs = {
            "stampede": lambda cache=cache: stampede(cache),
            "stale set": lambda cache=cache: stale_set(cache),
            "server killed": lambda cache=cache: outage(cache, "kill", "restart"),
            "server frozen": lambda cache=cache: outage(cache, "freeze", "thaw"),
            "contract": lambda cache=cache: contract.check(cache).set_index("promise")["held"].astype(int).to_dict(),
        }
        for run, measure in runs.items():
            measures = measure()
            shown = f"{sum(measures.values())} of {len(measures)} held" if run == "contract" else measures
            print(f"{name:16} {run:14} {shown}", flush=True)
            rows += [{"library": name, "run": run, "measure": key, "value": value} for key, value in measures.items()]
    frame = pd.DataFrame(rows)
    frame.to_csv(FOLDER / "libraries.csv", index=False, float_format="%.4g")
    packages = ("redis", "hiredis", "dogpile.cache", "cashews", "aiocache")
    versions = {name: importlib.metadata.version(name) for name in packages}
    facts = {"configuration": CONFIGURATION, "versions": versions, "environment": figures.environment()}
    (FOLDER / "libraries.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
