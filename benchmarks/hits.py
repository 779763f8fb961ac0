"""What a hit costs: CacheAside against a bare GET, and three well-known libraries on the same hit.

    make setup EXTRAS=benchmarks
    .venv/bin/python benchmarks/hits.py

All are interleaved in one run. Each timed call is 100 hits of one key with a value of eight
letters, on the embedded server over loopback. The ratio is that of medians with its 95 % interval,
paired by round, within the synchronous and within the asynchronous group. All use redis-py with
hiredis; each library otherwise as its own documentation sets it up, with JSON where it lets us
choose.
"""

import asyncio
import importlib.metadata
from collections.abc import Callable

import pandas as pd

import cachelab as cl
from cachelab.lab import timing

CALLS = 100
ROUNDS = 60
IDS = [f"user-{n}" for n in range(1, 101)]


def repeated(call: Callable) -> Callable:
    def calls():
        for _ in range(CALLS):
            call()

    return calls


def repeated_async(call: Callable) -> Callable:
    async def calls():
        for _ in range(CALLS):
            await call()

    return calls


def sync_hits(url: str) -> pd.DataFrame:
    client = cl.connect(url)
    users = cl.CacheAside(client, load=lambda id: "aB3xK9mP", ttl=3600, prefix="hits:")
    variants = {
        "bare GET": lambda: client.get("hits:user-1"),
        "CacheAside.get": lambda: users.get("user-1"),
    }
    users.warm(IDS)
    if region := dogpile(url):
        variants["dogpile.cache"] = lambda: region.get_or_create("user-1", lambda: "aB3xK9mP")
    timed = timing.compare({name: repeated(call) for name, call in variants.items()}, rounds=ROUNDS)
    return timing.summary(timed, baseline="bare GET")


def many_hits(url: str) -> pd.DataFrame:
    client = cl.connect(url)
    users = cl.CacheAside(client, load=lambda id: "aB3xK9mP", ttl=3600, prefix="hits:")
    keys = [f"hits:{id}" for id in IDS]
    users.warm(IDS)
    variants = {
        "bare MGET of 100": lambda: client.mget(keys),
        "get_many of 100": lambda: users.get_many(IDS),
    }
    timed = timing.compare(
        {name: repeated(call) for name, call in variants.items()}, rounds=ROUNDS // 2
    )
    return timing.summary(timed, baseline="bare MGET of 100")


async def async_hits(url: str) -> pd.DataFrame:
    client = cl.connect_async(url)

    async def load(id: str) -> str:
        return "aB3xK9mP"

    users = cl.AsyncCacheAside(client, load=load, ttl=3600, prefix="hits:")
    variants = {
        "bare awaited GET": lambda: client.get("hits:user-1"),
        "AsyncCacheAside.get": lambda: users.get("user-1"),
    }
    variants |= cashews(url) | aiocache(url)
    timed = await timing.compare_async(
        {name: repeated_async(call) for name, call in variants.items()}, rounds=ROUNDS
    )
    await client.connection_pool.disconnect()
    return timing.summary(timed, baseline="bare awaited GET")


def dogpile(url: str):
    try:
        from dogpile.cache import make_region
    except ImportError:
        return None
    return make_region().configure(
        "dogpile.cache.redis", expiration_time=3600, arguments={"url": url}
    )


def cashews(url: str) -> dict[str, Callable]:
    try:
        from cashews import Cache
    except ImportError:
        return {}
    cache = Cache()
    cache.setup(url, client_side=False)

    @cache(ttl=3600, key="cashews:{id}")
    async def get(id: str) -> str:
        return "aB3xK9mP"

    return {"cashews": lambda: get("user-1")}


def aiocache(url: str) -> dict[str, Callable]:
    try:
        from aiocache import Cache, cached
        from aiocache.serializers import JsonSerializer
    except ImportError:
        return {}
    from urllib.parse import urlsplit

    server = urlsplit(url)
    where = {"endpoint": server.hostname, "port": server.port, "password": server.password}

    @cached(
        ttl=3600,
        cache=Cache.REDIS,
        serializer=JsonSerializer(),
        key_builder=lambda f, id: f"aiocache:{id}",
        **where,
    )
    async def get(id: str) -> str:
        return "aB3xK9mP"

    return {"aiocache": lambda: get("user-1")}


def shown(table: pd.DataFrame, calls: int = CALLS) -> str:
    columns = {"p50": table["p50"] / calls * 1e6, "p95": table["p95"] / calls * 1e6}
    frame = pd.DataFrame(columns).rename(columns={"p50": "p50_us", "p95": "p95_us"}).round(1)
    return frame.join(table[["ratio", "ratio_low", "ratio_high", "n"]].round(3)).to_string()


if __name__ == "__main__":
    with cl.Server() as server:
        print(shown(sync_hits(server.url)), shown(many_hits(server.url)), sep="\n\n")
        print("\n" + shown(asyncio.run(async_hits(server.url))))
    for library in ("redis", "hiredis", "dogpile.cache", "cashews", "aiocache"):
        try:
            print(library, importlib.metadata.version(library), end="  ")
        except importlib.metadata.PackageNotFoundError:
            print(f"({library} is not installed: make setup EXTRAS=benchmarks)", end="  ")
    print()
