"""What a cluster costs: a hit, many hits, seeding, and whether the number of keys matters.

    .venv/bin/python benchmarks/cluster.py [--keys 1000000] [--rounds 40]

On three primaries without replicas over loopback; what is compared is interleaved in one run. The
ratio is that of medians with its 95 % interval, paired by round. A hit is compared with the GET of
the cluster client itself, many hits and seeding with redis-py's plain pipelines straight to each
node, whose keys were sorted out beforehand.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

import hiredis
import pandas as pd
import redis
from redis.asyncio.cluster import PipelineCommand

import cachelab as cl
from cachelab.lab import timing

TARGETS = {
    "CacheAside.get": 1.10,
    "AsyncCacheAside.get": 1.10,
    "get_many of 100": 2.0,
    "get_many of 100, async": 2.0,
    "seed, pipeline": 1.5,
    "seed, bulk": 1.5,
    "seed_async, pipeline": 1.5,
    "seed_async, bulk": 1.5,
}
CALLS = 100  # of what takes microseconds, in one round
IDS = [f"user-{n}" for n in range(1, 101)]
USERS = 2000  # to seed in one round
PREFIX = "hits:"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=10**6, help="the largest number of keys")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    print(f"redis-py {redis.__version__}, hiredis {hiredis.__version__}, n={arguments.rounds}\n")
    with cl.Cluster(replicas=0, maxmemory="1gb") as cluster:
        compare(cluster.url, arguments.rounds)
        asyncio.run(compare_async(cluster.url, arguments.rounds))
        sizes(cluster.url, arguments.keys, arguments.rounds)


def compare(url: str, rounds: int) -> None:
    client = cl.connect(url)
    users = cl.CacheAside(client, load=lambda id: "aB3xK9mP", ttl=3600, prefix=PREFIX)
    users.warm(IDS)
    reads = by_node(client, ((PREFIX + id, ("GET", PREFIX + id)) for id in IDS))
    writes = by_node(client, ((id, ("SET", id, value)) for id, value in cl.generate_users(USERS)))

    def straight(commands: dict, size: int) -> None:
        for node, words in commands.items():
            server = client.get_redis_connection(node)
            for at in range(0, len(words), size):
                pipeline = server.pipeline(transaction=False)
                for each in words[at : at + size]:
                    pipeline.execute_command(*each)
                pipeline.execute()

    hits = {
        "the client's GET": repeated(partial(client.get, PREFIX + IDS[0])),
        "CacheAside.get": repeated(partial(users.get, IDS[0])),
    }
    many = {
        "straight pipelines": partial(straight, reads, 100),
        "get_many of 100": partial(users.get_many, IDS),
    }
    seeding = {
        "straight pipelines": partial(straight, writes, 34),  # a third of a batch of 100
        "seed, pipeline": partial(cl.seed, client, USERS),
        "seed, bulk": partial(cl.seed, client, USERS, method="bulk"),
    }
    for variants in (hits, many, seeding):
        show(timing.compare(variants, rounds=rounds))


async def compare_async(url: str, rounds: int) -> None:
    client = cl.connect_async(url)

    async def load(id: str) -> str:
        return "aB3xK9mP"

    users = cl.AsyncCacheAside(client, load=load, ttl=3600, prefix=PREFIX)
    await users.warm(IDS)
    reads = by_node(client, ((PREFIX + id, ("GET", PREFIX + id)) for id in IDS))
    writes = by_node(client, ((id, ("SET", id, value)) for id, value in cl.generate_users(USERS)))

    async def to_node(node, words: list, size: int) -> None:
        for at in range(0, len(words), size):
            await node.execute_pipeline(
                [PipelineCommand(n, *each) for n, each in enumerate(words[at : at + size])]
            )

    async def straight(commands: dict, size: int) -> None:
        await asyncio.gather(*(to_node(node, words, size) for node, words in commands.items()))

    hits = {
        "the client's awaited GET": repeated_async(partial(client.get, PREFIX + IDS[0])),
        "AsyncCacheAside.get": repeated_async(partial(users.get, IDS[0])),
    }
    many = {
        "straight pipelines, async": partial(straight, reads, 100),
        "get_many of 100, async": partial(users.get_many, IDS),
    }
    seeding = {
        "straight pipelines, async": partial(straight, writes, 34),
        "seed_async, pipeline": partial(cl.seed_async, client, USERS),
        "seed_async, bulk": partial(cl.seed_async, client, USERS, method="bulk"),
    }
    for variants in (hits, many, seeding):
        show(await timing.compare_async(variants, rounds=rounds))
    await client.aclose()


def sizes(url: str, most: int, rounds: int) -> None:
    """Print what a key costs to seed and to hit, as the cluster fills."""
    client = cl.connect(url)
    users = cl.CacheAside(client, load=lambda id: "aB3xK9mP", ttl=3600, prefix=PREFIX)
    users.warm(IDS)
    seconds = []
    count = 1000
    while count <= most:
        report = cl.seed(client, count, batch_size=1000, method="bulk", prefix=f"of-{count}:")
        for _ in range(rounds):
            began = time.perf_counter()
            users.get_many(IDS)
            seconds.append((f"{count:,}", time.perf_counter() - began))
        print(f"{count:>9,} keys: {report.seconds / count * 1e6:6.1f} us a key to seed")
        count *= 10
    for size, each in pd.DataFrame(seconds, columns=["keys", "seconds"]).groupby(
        "keys", sort=False
    ):
        print(f"{size:>9} keys: {each['seconds'].median() / len(IDS) * 1e6:6.1f} us a key to hit")


def by_node(client, commands: Iterable[tuple[str, tuple]]) -> dict:
    """Return the words for each node."""
    words: dict = {}
    for key, each in commands:
        words.setdefault(client.get_node_from_key(key), []).append(each)
    return words


def repeated(call: Callable) -> Callable:
    def calls() -> None:
        for _ in range(CALLS):
            call()

    return calls


def repeated_async(call: Callable) -> Callable:
    async def calls() -> None:
        for _ in range(CALLS):
            await call()

    return calls


def show(times: pd.DataFrame) -> None:
    """Print a line a variant; the first variant is what the others are compared with."""
    for name, row in timing.summary(times).iterrows():
        interval = f"({row.ratio_low:.2f} to {row.ratio_high:.2f})"
        target = f", target {TARGETS[name]:g}" if name in TARGETS else ""
        print(f"{name:28}{row.p50 * 1000:8.2f} ms {row.ratio:6.2f} {interval} times{target}")
    print()


if __name__ == "__main__":
    main()
