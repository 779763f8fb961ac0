"""What metrics cost: a hit and a miss with and without `register`, and a scrape of 1,000 caches.

    .venv/bin/python benchmarks/metrics.py

A hit executes the same code either way, so its ratio is a test of the measurement: the interval
includes 1. Its control counts each read by a prometheus_client counter, as an application that does
without `stats` would. All are interleaved in one run, on the embedded server over loopback; ratios
are of medians, with their 95 % interval, paired by round.
"""

import itertools
from collections.abc import Callable

import pandas as pd
from prometheus_client import CollectorRegistry, Counter, generate_latest

import cachelab as cl
from cachelab import metrics
from cachelab.lab import timing

CALLS = 100
ROUNDS = 100
CACHES = 1000


def repeated(call: Callable) -> Callable:
    def calls():
        for _ in range(CALLS):
            call()

    return calls


def cache(client, prefix: str) -> cl.CacheAside[str]:
    return cl.CacheAside(client, load=lambda id: "aB3xK9mP", ttl=3600, prefix=prefix)


def reads(url: str) -> pd.DataFrame:
    client, registry = cl.connect(url), CollectorRegistry()
    bare, again, shown = (cache(client, f"metrics:{n}:") for n in range(3))
    metrics.register(shown, "shown", registry)
    counter = Counter("reads", "Reads.", ["cache", "outcome"], registry=registry)

    def counted():
        again.get("user-1")
        counter.labels("again", "hit").inc()

    hits = {
        "hit": lambda: bare.get("user-1"),
        "hit, registered": lambda: shown.get("user-1"),
        "hit, a counter of its own": counted,
    }
    new = itertools.count()
    misses = {
        "miss": lambda: bare.get(f"new-{next(new)}"),
        "miss, registered": lambda: shown.get(f"new-{next(new)}"),
    }
    return pd.concat([compared(hits), compared(misses)])


def compared(variants: dict[str, Callable]) -> pd.DataFrame:
    timed = timing.compare({name: repeated(call) for name, call in variants.items()}, rounds=ROUNDS)
    table = timing.summary(timed, baseline=next(iter(variants)))
    table.insert(0, "p50_us", (table["p50"] / CALLS * 1e6).round(1))
    return table[["p50_us", "ratio", "ratio_low", "ratio_high", "n"]].round(3)


def scrapes(url: str, count: int = CACHES) -> str:
    client, registry = cl.connect(url), CollectorRegistry()
    caches = [cache(client, f"metrics:{n}:") for n in range(count)]
    for n, one in enumerate(caches):
        metrics.register(one, f"cache-{n}", registry)
    text = generate_latest(registry)
    seconds = sorted(timing.sample(lambda: generate_latest(registry), n=15, warmup=2))
    return (
        f"a scrape of {count:,} caches: {1000 * seconds[7]:.0f} ms (median of 15), "
        f"{len(text) / 1e6:.1f} MB, {text.count(b'{') / count:.0f} series a cache"
    )


if __name__ == "__main__":
    with cl.Server() as server:
        print(reads(server.url).to_string())
        print("\n" + scrapes(server.url, 1), scrapes(server.url), sep="\n")
