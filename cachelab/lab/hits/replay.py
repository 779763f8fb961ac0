"""Replay a trace against a real server: read, and on a miss fill, one request after the other.

As fast as it goes, or by the clock.
"""

import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import redis

import cachelab as cl
from cachelab import _check
from cachelab.clients.shards import Command, exchange, is_cluster

BATCH = 100  # requests on the way at once: what the server has yet to read counts as used memory
TICK = 0.01  # seconds that a request by the clock may be late, so that several go out together
TIMEOUT = 10.0  # seconds to wait for a reply; not what is measured here
# As theory and simulations call them.
NAMES = {"allkeys-lru": "LRU", "allkeys-lfu": "LFU", "allkeys-random": "random"}
ALL = "all"  # stands for all prefixes together
OFFERED = "no such policy"  # a value that CONFIG SET refuses, naming those that it takes
LOOK = 0.2  # seconds between two looks at how far replays are
LONG = 3.0  # seconds after which replays side by side show a progress bar

# A request, read then fill. Commands that are sent in one go are answered one after the other, and
# the server evicts before each of them, so the request sees what a client would see that waits for
# every answer. -1: no room, and nothing may be evicted.
REQUEST = """
if redis.call('GET', KEYS[1]) then return 1 end
local value, stored = string.rep('x', ARGV[1])
if ARGV[2] == '0' then stored = redis.pcall('SET', KEYS[1], value)
else stored = redis.pcall('SET', KEYS[1], value, 'PX', ARGV[2]) end
if not stored.err then return 0 end
return string.find(stored.err, 'OOM') and -1 or stored
"""


class Stopped(Exception):
    """A replay was told to end early."""


@dataclass
class Watch:
    """How many requests of a replay are done, and whether it is to stop."""

    stop: Event = field(default_factory=Event)
    done: int = 0


def run(
    url: str,
    trace: np.ndarray,
    value_bytes: int | np.ndarray = 1000,
    *,
    names: Callable[[int], str] = "item:{}".format,
    times: np.ndarray | None = None,
    ttl: float | None = None,
    windows: int = 20,
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Replay a trace against a server and return what came of it, a row for each window and prefix.

    Nothing is deleted: the keys stay. Nothing is sent twice either.

    A server's LRU counts whole seconds. It comes within 3 points of exact LRU where a key stays for
    more than a second, that is keys / evicted a second, within half a point from some 3 seconds on,
    and lies up to 8 below where it stays for less.

    Args:
        url: The server, or a cluster: its servers are counted together.
        trace: The ids asked for, in order.
        value_bytes: The size of the values, one for all or one a request.
        names: The key of an id; its prefix is the part before the first colon, "" where there is
            none.
        times: When each request is due, in seconds, never falling (an open loop, as from
            `workload.arrivals`), the first of them at once; without them each batch goes out when
            the one before has been answered.
        ttl: Seconds a key lives, None for ever; by the clock many times TICK, since requests go
            out that late.
        windows: Into how many parts the requests are divided.
        watch: By which another thread sees how far the replay is, and ends it.

    Returns:
        window, prefix ("all" stands for all of them together, "all:" for a prefix that is called
        so), requests, hits, hit_rate, refused (values that found no room), and in the rows for
        "all" what the server says at the window's end: seconds since the start, late_seconds (the
        longest delay of a request against ``times``), keys, evicted, used_memory_bytes,
        server_hits, server_misses, the last two and evicted since the window began.

    Raises:
        redis.RedisError: The server goes away or does not answer for TIMEOUT seconds.
        Stopped: The watch says so.
    """
    watch, trace = watch or Watch(), np.asarray(trace)
    due = _due(trace, times)
    sizes = _sizes(trace, value_bytes)
    ttl_ms = 0 if ttl is None else _check.milliseconds("ttl", ttl)
    windows = min(_check.whole("windows", windows, least=1), len(trace))
    ends = np.linspace(0, len(trace), windows + 1).astype(int)[1:]
    ids, places = np.unique(trace, return_inverse=True)
    keys = [_check.text("a key that names gives", names(id)) for id in ids.tolist()]
    prefixes, of_key = np.unique([_prefix(key) for key in keys], return_inverse=True)
    # Numbers: texts of one length each would take the length of the longest a request.
    groups = of_key[places]
    client: Any = cl.connect(url, retries=0, timeout=TIMEOUT)
    request, rows, done = client.script_load(REQUEST), [], 0
    before, start = _counters(client), time.perf_counter()
    for window, end in enumerate(ends.tolist()):
        first, late = done, 0.0
        replies: list[int] = []
        while done < end:
            until = min(end, done + BATCH)
            if due is not None:
                watch.stop.wait(max(0.0, start + due[done] + TICK - time.perf_counter()))
                now = time.perf_counter() - start
                ready = int(np.searchsorted(due[done:until], now, side="right"))
                until = min(until, done + max(1, ready))
                late = max(late, now - due[done])
            if watch.stop.is_set():
                raise Stopped
            asked = ((keys[places[at]], sizes[at]) for at in range(done, until))
            replies += _replies(
                client, [(key, ("EVALSHA", request, 1, key, size, ttl_ms)) for key, size in asked]
            )
            done = watch.done = until
        answers, after = pd.Series(replies), _counters(client)
        server = {"seconds": time.perf_counter() - start, "late_seconds": late, **after}
        for name in ("evicted", "server_hits", "server_misses"):
            server[name] = after[name] - before[name]
        rows.append(_counted(window, ALL, answers) | server)
        rows += [
            _counted(window, str(prefixes[group]), part)
            for group, part in answers.groupby(groups[first:end])
        ]
        before = after
    return pd.DataFrame(rows)


def side_by_side(
    policies: Iterable[str],
    traces: np.ndarray | Mapping[str, np.ndarray],
    rooms: int | Iterable[int],
    config: Mapping[str, str | int] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Replay traces under several policies and in several rooms at once, each on its own server.

    Servers beside one another slow each other down, and hit whatever they hit alone. When one of
    them fails, or an interrupt comes, all end. What takes longer than LONG shows its progress.

    Args:
        policies: Of the servers, among those that are `offered`.
        traces: The ids asked for, in order: one trace, or several by name.
        rooms: How many values, of the largest size, a server has room for, about: one number, or
            several.
        config: More of the servers' configuration, such as {"maxmemory_samples": 10}.
        options: Arguments of `run`, the same for all.

    Returns:
        The rows of `run` behind the columns policy, room and, of several traces, trace.

    Raises:
        ServerError: A policy is not offered.
    """
    names = list(_check.several("policies", policies))
    _check.whole("the number of policies", len(names), least=1)
    named = traces if isinstance(traces, Mapping) else {"": traces}
    size = int(np.max(options.get("value_bytes", 1000)))
    asked = rooms if isinstance(rooms, Iterable) else [rooms]
    memory = {room: room_for(room, size) for room in asked}
    cases = list(itertools.product(names, memory, named))
    _check.whole("the number of replays", len(cases), least=1)
    stop = Event()
    watches = [Watch(stop) for _ in cases]
    with (
        ThreadPoolExecutor(len(cases)) as pool,
        ExitStack() as servers,  # without their servers the threads end, too
    ):
        replays = []
        urls = [
            servers.enter_context(_server(policy, memory[room], config)).url
            for policy, room, _ in cases
        ]
        for url, watch, (_, _, name) in zip(urls, watches, cases, strict=True):
            replays.append(pool.submit(run, url, named[name], watch=watch, **options))
        _follow(replays, watches, sum(len(named[name]) for _, _, name in cases))
    columns = ["policy", "room", *["trace"] * isinstance(traces, Mapping)]
    frames = [
        replay.result().assign(**dict(zip(columns, case, strict=False)))
        for case, replay in zip(cases, replays, strict=True)
    ]
    df = pd.concat(frames, ignore_index=True)
    return df[[*columns, *df.columns.drop(columns)]]


def room_for(keys: int, value_bytes: int = 1000) -> int:
    """Return the bytes of memory that a server of its own uses when it holds ``keys`` values."""
    keys = _check.whole("keys", keys, least=1)
    with cl.Server(maxmemory="0") as server:
        run(server.url, np.arange(keys), value_bytes)
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


def _server(policy: str, memory: int, config: Mapping[str, str | int] | None) -> cl.Server:
    limits: dict[str, Any] = {"maxmemory": str(memory), "maxmemory_policy": policy}
    return cl.Server(**limits | dict(config or {}))


def _follow(replays: Iterable[Future], watches: Iterable[Watch], requests: int) -> None:
    """Wait for replays; when one fails, or an interrupt comes, tell all to stop."""
    from tqdm.auto import tqdm

    left = set(replays)
    try:
        with tqdm(total=requests, unit=" requests", delay=LONG, leave=False) as bar:
            while left:
                ended, left = wait(left, LOOK, FIRST_EXCEPTION)
                for replay in ended:
                    replay.result()
                bar.update(sum(watch.done for watch in watches) - bar.n)
    finally:
        for watch in watches:
            watch.stop.set()


def _due(trace: np.ndarray, times: np.ndarray | None) -> np.ndarray | None:
    """Return when each request is due, counted from the first."""
    due = None if times is None else np.asarray(times, float)
    if trace.ndim != 1 or not len(trace) or (due is not None and due.shape != trace.shape):
        raise ValueError("trace must be one row of ids, at least one, and times as many")
    if due is None:
        return None
    if not (np.isfinite(due).all() and (np.diff(due) >= 0).all()):
        raise ValueError("times must be seconds that never fall: sort the requests by time")
    return due - due[0]


def _sizes(trace: np.ndarray, value_bytes: int | np.ndarray) -> list[int]:
    """Return the size of each request's value."""
    sizes = np.asarray(value_bytes)
    if sizes.dtype.kind not in "iu" or sizes.shape not in ((), trace.shape) or sizes.min() < 0:
        rule = "whole numbers of at least 0, one for all or one a request"
        raise ValueError(f"value_bytes must be {rule}, not {sizes!r}")
    return np.broadcast_to(sizes, trace.shape).tolist()


def _prefix(key: str) -> str:
    prefix = key.partition(":")[0] if ":" in key else ""
    return f"{ALL}:" if prefix == ALL else prefix


def _replies(client: Any, commands: list[Command]) -> list[int]:
    """Send commands at once, on a cluster to each node its own; return what they reply."""
    if not is_cluster(client):
        pipeline = client.pipeline(transaction=False)
        for _, words in commands:
            pipeline.execute_command(*words)
        return pipeline.execute()
    replies = exchange(client, commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _counters(client: Any) -> dict[str, int]:
    servers = [client]
    if is_cluster(client):
        servers = [client.get_redis_connection(node) for node in client.get_primaries()]
    infos = [server.info() for server in servers]
    return {
        "keys": sum(server.dbsize() for server in servers),
        "evicted": sum(info["evicted_keys"] for info in infos),
        "used_memory_bytes": sum(info["used_memory"] for info in infos),
        "server_hits": sum(info["keyspace_hits"] for info in infos),
        "server_misses": sum(info["keyspace_misses"] for info in infos),
    }


def _counted(window: int, prefix: str, answers: pd.Series) -> dict[str, Any]:
    hits = int((answers == 1).sum())
    return {
        "window": window,
        "prefix": prefix,
        "requests": len(answers),
        "hits": hits,
        "hit_rate": hits / len(answers),
        "refused": int((answers == -1).sum()),
    }
