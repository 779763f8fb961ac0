"""Replay a trace against a real server: read, and on a miss fill, one request after the other, as fast as it goes or by the clock."""

import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack

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
    before the first colon, "" where there is none. times: when each request is due, in seconds, never falling (an open
    loop, as from `workload.arrivals`), the first of them at once; without them each batch goes out when the one before has
    been answered. ttl: seconds a key lives, None for ever; by the clock many times TICK, since requests go out that late.

    Columns: window, prefix ("all" stands for all of them together), requests, hits, hit_rate, refused (values that found no
    room), and in the rows for "all" what the server says at the window's end: seconds since the start, late_seconds (the
    longest delay of a request against ``times``), keys, evicted, used_memory_bytes, server_hits, server_misses, the last two
    and evicted since the window began. Nothing is deleted: the keys stay. Nothing is sent twice either: redis.RedisError is
    raised when the server goes away or does not answer for TIMEOUT seconds.

    A server's LRU counts whole seconds. It comes within 3 points of exact LRU where a key stays for more than a second, that
    is keys / evicted a second, within half a point from some 3 seconds on, and lies up to 8 below where it stays for less.
    """
    trace = np.asarray(trace)
    due = None if times is None else np.asarray(times, float)
    if trace.ndim != 1 or not len(trace) or (due is not None and due.shape != trace.shape):
        raise ValueError("trace must be one row of ids, at least one, and times as many")
    if due is not None:
        if not (np.isfinite(due).all() and (np.diff(due) >= 0).all()):
            raise ValueError("times must be seconds that never fall: sort the requests by time")
        due = due - due[0]
    sizes = np.asarray(value_bytes)
    if sizes.dtype.kind not in "iu" or sizes.shape not in ((), trace.shape) or sizes.min() < 0:
        raise ValueError(
            f"value_bytes must be whole numbers of at least 0, one for all or one a request, not {sizes!r}"
        )
    sizes = np.broadcast_to(sizes, trace.shape).tolist()
    ttl_ms = 0 if ttl is None else max(1, round(1000 * _check.number("ttl", ttl, above=0)))
    windows = min(_check.whole("windows", windows, least=1), len(trace))
    ends = np.linspace(0, len(trace), windows + 1).astype(int)[1:]
    ids, places = np.unique(trace, return_inverse=True)
    keys = [_check.text("a key that names gives", names(id)) for id in ids.tolist()]
    prefixes, of_key = np.unique([key.partition(":")[0] if ":" in key else "" for key in keys], return_inverse=True)
    if "all" in prefixes:
        raise ValueError("a key's prefix must be another than 'all', which stands for all of them: give other names")
    groups = of_key[places]  # numbers: texts of one length each would take the length of the longest a request
    client = cl.connect(url, retries=0, timeout=TIMEOUT)
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
        rows += [_counted(window, str(prefixes[group]), part) for group, part in answers.groupby(groups[first:end])]
        before = after
    return pd.DataFrame(rows)


def side_by_side(
    policies: Iterable[str], trace: np.ndarray, keys: int, samples: int = 5, seed: int = 0, **options: object
) -> pd.DataFrame:
    """Replay one trace under several policies at once, each on a server of its own with room for about ``keys`` values.

    Returns the rows of `run` with the policy in a first column; options are its arguments, and the room is for values of
    the largest of their sizes. samples: how many keys the server looks at to find one to evict (maxmemory-samples). Servers
    beside one another slow each other down, and hit whatever they hit alone. Raises what the first of them to fail raises,
    ServerError for a policy that is not `offered`, and ends the others.
    """
    names = list(_check.several("policies", policies))
    _check.whole("the number of policies", len(names), least=1)
    size = int(np.max(options.get("value_bytes", 1000)))
    maxmemory = str(room_for(keys, size))

    with ThreadPoolExecutor(len(names)) as pool, ExitStack() as servers:  # without their servers the threads end, too
        config = {"maxmemory": maxmemory, "maxmemory_samples": samples}
        urls = [servers.enter_context(cl.Server(maxmemory_policy=name, **config)).url for name in names]
        replays = [pool.submit(run, url, trace, **options) for url in urls]
        for replay in as_completed(replays):
            replay.result()
    frames = [replay.result().assign(policy=name) for name, replay in zip(names, replays, strict=True)]
    df = pd.concat(frames, ignore_index=True)
    return df[["policy", *df.columns.drop("policy")]]


def room_for(keys: int, value_bytes: int = 1000) -> int:
    """Return the bytes of memory that a server of its own uses when it holds ``keys`` values."""
    with cl.Server(maxmemory="0") as server:
        run(server.url, np.arange(_check.whole("keys", keys, least=1)), value_bytes)
        return cl.connect(server.url).info("memory")["used_memory"]


def offered(url: str) -> list[str]:
    """Return the eviction policies that the server at ``url`` offers."""
    try:
        cl.connect(url).config_set("maxmemory-policy", OFFERED)
    except redis.ResponseError as error:
        if "must be one of" not in str(error):
            raise
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
