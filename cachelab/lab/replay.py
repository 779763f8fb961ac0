"""Replay a trace against a real server: read, and on a miss fill, one request after the other, as fast as it goes or by the clock."""

import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import redis

import cachelab as cl
from cachelab import _check

BATCH = 100  # requests on the way at once: few, since the server counts what it has yet to read as used memory
TICK = 0.01  # seconds that a request by the clock may be late, so that several go out together
TIMEOUT = 10.0  # seconds to wait for a reply; not what is measured here
NAMES = {"allkeys-lru": "LRU", "allkeys-lfu": "LFU", "allkeys-random": "random"}  # as theory and simulations call them
OFFERED = "no such policy"  # a value that CONFIG SET refuses, naming those that it takes

# A request, read then fill. Commands that are sent in one go are answered one after the other, and the server evicts before
# each of them, so the request sees what a client would see that waits for every answer. -1: no room, and nothing may be evicted.
REQUEST = """
if redis.call('GET', KEYS[1]) then return 1 end
local value, stored = string.rep('x', ARGV[1])
if ARGV[2] == '0' then stored = redis.pcall('SET', KEYS[1], value)
else stored = redis.pcall('SET', KEYS[1], value, 'PX', ARGV[2]) end
if not stored.err then return 0 end
return string.find(stored.err, 'OOM') and -1 or stored
"""


def run(
    url: str, trace: np.ndarray, value_bytes: int | np.ndarray = 1000, *, names: Callable[[int], str] = "item:{}".format,
    times: np.ndarray | None = None, ttl: float | None = None, windows: int = 20,
) -> pd.DataFrame:  # fmt: skip
    """Replay a trace against the server at ``url`` and return what came of it, a row for each window and prefix.

    value_bytes: the size of the values, one for all or one a request. names: the key of an id; its prefix is the part
    before the first colon. times: when each request is due, in seconds, never falling (an open loop, as from
    `workload.arrivals`); without them each batch goes out when the one before has been answered. ttl: seconds a key lives,
    None for ever.

    Columns: window, prefix ("all" stands for all of them together), requests, hits, hit_rate, refused (values that found no
    room), and in the rows for "all" what the server says at the window's end: seconds since the start, late_seconds (the
    longest delay of a request against ``times``), keys, evicted, used_memory_bytes, server_hits, server_misses, the last two
    and evicted since the window began. Nothing is deleted: the keys stay.
    """
    trace = np.asarray(trace)
    due = None if times is None else np.asarray(times, float)
    if trace.ndim != 1 or not len(trace) or (due is not None and due.shape != trace.shape):
        raise ValueError("trace must be one row of ids, at least one, and times as many")
    sizes = np.broadcast_to(value_bytes, trace.shape).tolist()
    ttl_ms = 0 if ttl is None else max(1, round(1000 * _check.number("ttl", ttl, above=0)))
    windows = min(_check.whole("windows", windows, least=1), len(trace))
    ends = np.linspace(0, len(trace), windows + 1).astype(int)[1:]
    ids, places = np.unique(trace, return_inverse=True)
    keys = [names(id) for id in ids.tolist()]
    prefixes = np.array([key.partition(":")[0] for key in keys])[places]
    client = cl.connect(url, timeout=TIMEOUT)
    request, rows, done = client.script_load(REQUEST), [], 0
    before, start = _told(client), time.perf_counter()
    for window, end in enumerate(ends.tolist()):
        first, late, replies = done, 0.0, []
        while done < end:
            until = min(end, done + BATCH)
            if due is not None:
                time.sleep(max(0.0, start + due[done] + TICK - time.perf_counter()))
                now = time.perf_counter() - start
                until = min(until, done + max(1, int(np.searchsorted(due[done:until], now, side="right"))))
                late = max(late, now - due[done])
            pipeline = client.pipeline(transaction=False)
            for place in range(done, until):
                pipeline.evalsha(request, 1, keys[places[place]], sizes[place], ttl_ms)
            replies += pipeline.execute()
            done = until
        answers, after = pd.Series(replies), _told(client)
        server = {"seconds": time.perf_counter() - start, "late_seconds": late, **after}
        server |= {name: after[name] - before[name] for name in ("evicted", "server_hits", "server_misses")}
        rows.append(_counted(window, "all", answers) | server)
        groups = answers.groupby(prefixes[first:end])
        rows += [_counted(window, prefix, part) for prefix, part in groups]
        before = after
    return pd.DataFrame(rows)


def side_by_side(
    policies: Iterable[str], trace: np.ndarray, keys: int, samples: int = 5, seed: int = 0, **options: object
) -> pd.DataFrame:
    """Replay one trace under several policies at once, each on a server of its own with room for about ``keys`` values.

    Returns the rows of `run` with the policy in a first column; options are its arguments. samples: how many keys the
    server looks at to find one to evict (maxmemory-samples). Servers beside one another slow each other down, and hit
    whatever they hit alone.
    """
    size = int(np.max(options.get("value_bytes", 1000)))
    maxmemory = str(room_for(keys, size))

    def replayed(policy: str) -> pd.DataFrame:
        with cl.Server(maxmemory=maxmemory, maxmemory_policy=policy, maxmemory_samples=samples) as server:
            return run(server.url, trace, **options)

    names = list(policies)
    with ThreadPoolExecutor(len(names)) as pool:
        frames = [df.assign(policy=name) for name, df in zip(names, pool.map(replayed, names), strict=True)]
    df = pd.concat(frames, ignore_index=True)
    return df[["policy", *df.columns.drop("policy")]]


def room_for(keys: int, value_bytes: int = 1000) -> int:
    """Return the bytes of memory that a server of its own uses when it holds ``keys`` values."""
    with cl.Server() as server:
        run(server.url, np.arange(_check.whole("keys", keys, least=1)), value_bytes)
        return cl.connect(server.url).info("memory")["used_memory"]


def offered(url: str) -> list[str]:
    """Return the eviction policies that the server at ``url`` offers."""
    try:
        cl.connect(url).config_set("maxmemory-policy", OFFERED)
    except redis.ResponseError as error:
        return re.findall(r"[a-z]+(?:-[a-z]+)*", str(error).rpartition(":")[2])
    raise AssertionError(f"a server has taken {OFFERED!r} for an eviction policy")


def _told(client: redis.Redis) -> dict[str, int]:
    info = client.info()
    told = {"keys": client.dbsize(), "evicted": info["evicted_keys"], "used_memory_bytes": info["used_memory"]}
    return told | {"server_hits": info["keyspace_hits"], "server_misses": info["keyspace_misses"]}


def _counted(window: int, prefix: str, answers: pd.Series) -> dict[str, object]:
    hits, refused = int((answers == 1).sum()), int((answers == -1).sum())
    told = {"window": window, "prefix": prefix, "requests": len(answers), "hits": hits, "hit_rate": hits / len(answers)}
    return told | {"refused": refused}
