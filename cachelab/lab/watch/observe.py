"""What a server says of itself, as tidy frames: read-only, bounded, and gentle.

Every frame says in ``attrs["commands"]`` how many commands it took, and in ``attrs["why"]`` what it
could not learn, and why. No function sends KEYS, MONITOR, or a command that changes anything.
"""

import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import redis
from redis.exceptions import NoPermissionError, ResponseError

from cachelab import _check
from cachelab.cache.stats import Stats
from cachelab.clients.shards import is_cluster

SAMPLE = 1000  # keys
FIELDS = re.compile(r"[\w-]+=[^,]*(,[\w-]+=[^,]*)*")  # a line of INFO that holds several values
STEP = 100  # keys that a SCAN looks at: some 30 microseconds of the server's time
NESTED = 5  # elements of a list, hash or set that MEMORY USAGE weighs
SHOWN = 40  # characters of an argument
PERCENTILES = (50, 95, 99)

COMMANDS = [
    "command", "calls", "usec", "usec_per_call", "share", "rejected", "failed", "p50_usec",
    "p99_usec",
]  # fmt: skip
SLOW = ["kind", "at", "amount", "unit", "command", "text", "client"]
KEYS = ["key", "type", "bytes", "ttl", "idle", "freq"]

# What each log of a server with COMMANDLOG keeps; elsewhere there is SLOWLOG, the first of them.
LOGS = {"slow": "usec", "large-request": "bytes", "large-reply": "bytes"}
PRIVATE = frozenset({"acl", "auth", "config", "hello", "migrate", "replicaof", "sentinel"})
SERIES = {  # what `sampled` shows of what grows, and where INFO has it
    "commands": "total_commands_processed",
    "hits": "keyspace_hits",
    "misses": "keyspace_misses",
    "evicted": "evicted_keys",
    "expired": "expired_keys",
    "connections": "total_connections_received",
    "out": "total_net_output_bytes",
}
LEVELS = {"clients": "connected_clients", "used": "used_memory"}
COLUMNS = [
    "at", "commands", "hits", "misses", "hit_rate", "evicted", "expired", "connections", "clients",
    "used", "out",
]  # fmt: skip
LFU_START = 5  # a new key's counter
LFU_FACTOR = 10  # lfu-log-factor, where it is not said


def info(client: redis.Redis, *sections: str) -> pd.DataFrame:
    """Return what INFO says, a row a value.

    Args:
        client: Of one server; of a cluster that of a node, ``cluster.get_redis_connection(node)``.
        *sections: Such as "memory", "stats"; by default those that the server shows unasked.

    Returns:
        The tidy frame (section, name, value). Of a line that holds several values each is a row:
        ``db0.keys``. One command.

    Raises:
        TypeError: The client is a whole cluster's.
    """
    rows = []
    for section, name, text in _lines(_sent(client, "INFO", *sections)):
        if FIELDS.fullmatch(text):
            fields = (field.split("=", 1) for field in text.split(","))
            rows += [(section, f"{name}.{field}", _value(one)) for field, one in fields]
        else:
            rows.append((section, name, _value(text)))
    return _told(pd.DataFrame(rows, columns=["section", "name", "value"], dtype=object), 1)


def values(client: redis.Redis, *sections: str) -> dict[str, Any]:
    """Return what `info` does as {name: value}: two of them are a window, for `change`."""
    frame = info(client, *sections)
    return dict(zip(frame["name"], frame["value"], strict=True))


def change(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Return how much each number of INFO grew.

    A count that became less began anew, as after a restart or CONFIG RESETSTAT: it is taken as
    it stands. For a gauge, such as used_memory, look at ``after`` itself.

    >>> change({"hits": 5, "role": "master"}, {"hits": 7, "role": "master"})
    {'hits': 2}
    >>> change({"hits": 5}, {"hits": 2})
    {'hits': 2}
    """
    both = {name: (before.get(name, 0), now) for name, now in after.items() if _is_number(now)}
    return {
        name: now - was if _is_number(was) and now >= was else now
        for name, (was, now) in both.items()
    }


def hit_rate(
    before: Mapping[str, Any] | Stats | None, after: Mapping[str, Any] | Stats
) -> float | None:
    """Return the share of the reads between two looks that found what they wanted.

    A server counts for all clients and every command that looks a key up: TTL and EXISTS too, and
    HGET of an absent field as a hit. A cache counts its own reads: by prefix is by cache.

    Args:
        before: What ``client.info("stats")`` or `values` returned first, or ``cache.stats``; None
            for all the time since the start.
        after: The same later.

    Returns:
        From 0 to 1; None when nothing was read.

    >>> hit_rate({"keyspace_hits": 10, "keyspace_misses": 10},
    ...          {"keyspace_hits": 40, "keyspace_misses": 20})
    0.75
    >>> hit_rate(None, {"keyspace_hits": 0, "keyspace_misses": 0}) is None
    True
    """
    grown = change(_reads(before) if before is not None else {}, _reads(after))
    reads = sum(grown.values())
    return grown["hits"] / reads if reads else None


def commands(client: redis.Redis) -> pd.DataFrame:
    """Return what each command has cost the server, the dearest first.

    Returns:
        The tidy frame (command, calls, usec, usec_per_call, share, rejected, failed, p50_usec,
        p99_usec). share: of the server's time in commands, 0 to 1; rejected: refused before they
        ran, as when memory is full; failed: while they ran. Microseconds inside the command, not
        the client's wait. The percentiles are of all the time since the server started. One
        command.
    """
    stats: dict[str, dict[str, float]] = {}
    tails: dict[str, dict[str, float]] = {}
    for _, name, text in _lines(_sent(client, "INFO", "commandstats", "latencystats")):
        into = stats if name.startswith("cmdstat_") else tails
        command = name.removeprefix("cmdstat_").removeprefix("latency_percentiles_usec_")
        parts = (part.split("=", 1) for part in text.split(","))
        into[command] = {part: float(one) for part, one in parts}
    total = sum(row["usec"] for row in stats.values()) or 1
    rows = [
        (
            command, int(row["calls"]), row["usec"], row["usec_per_call"], row["usec"] / total,
            int(row.get("rejected_calls", 0)), int(row.get("failed_calls", 0)),
            *(tails.get(command, {}).get(one, np.nan) for one in ("p50", "p99")),
        )
        for command, row in stats.items()
    ]  # fmt: skip
    why = "" if tails else "latency-tracking is off: the server keeps no percentiles"
    return _sorted(_frame(rows, COMMANDS, 1, why), "usec")


def since(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Return what each command cost between two frames of `commands`; not called, not there."""
    counts = ["calls", "usec", "rejected", "failed"]
    was = before.set_index("command")[counts].reindex(after["command"]).fillna(0)
    now = after.set_index("command")
    grown = now[counts].astype(float)
    grown = grown.where(grown < was, grown - was)  # a count that became less began anew
    grown["usec_per_call"] = grown["usec"] / grown["calls"].where(grown["calls"] > 0)
    grown["share"] = grown["usec"] / max(grown["usec"].sum(), 1)
    now[grown.columns] = grown
    found = now[(grown["calls"] > 0) | (grown["rejected"] > 0)].reset_index()[COMMANDS]
    found = found.astype({"calls": int, "rejected": int, "failed": int})
    return _sorted(_told(found, 0), "usec")


def slow(client: redis.Redis, count: int = 16) -> pd.DataFrame:
    """Return the newest commands that the server found slow, and on Valkey those that were large.

    Of a command's arguments only the first is shown, shortened, as a rule its key: what else it
    carried may be private.

    Args:
        client: Of one server.
        count: Rows of each log, at most.

    Returns:
        The tidy frame (kind, at, amount, unit, command, text, client). kind: "slow", of which
        unit is "usec", or "large-request", "large-reply", of which it is "bytes"; at: when, in the
        server's time. One command, or three with COMMANDLOG.
    """
    count = _check.whole("count", count, least=1, most=1000)
    rows: list[tuple[Any, ...]] = []
    used, why = 0, ""
    for kind, unit in LOGS.items():
        used += 1
        try:
            found = _sent(client, "COMMANDLOG GET", count, kind, raw=True)
        except ResponseError as error:
            refused = isinstance(error, NoPermissionError)
            whose = "this user may not ask" if refused else "this server has no"
            why = f"{whose} COMMANDLOG: what was large is not shown"
            found = _sent(client, "SLOWLOG", "GET", count, raw=True)
            used += 1
        rows += [_entry(kind, unit, one) for one in found]
        if why:
            break
    return _frame(rows, SLOW, used, why)


def latency(client: redis.Redis, *names: str) -> pd.DataFrame:
    """Return how long calls of each command took inside the server, as LATENCY HISTOGRAM counts.

    Args:
        client: Of one server.
        *names: Commands, such as "get"; by default all.

    Returns:
        The tidy frame (command, usec, calls, share), cumulative: share of the calls, 0 to 1, took
        at most so many microseconds. One command.
    """
    found = _sent(client, "LATENCY HISTOGRAM", *names)
    pairs = _pairs(found)
    rows = []
    for command, told in pairs.items():
        told = _pairs(told)
        for usec, calls in _pairs(told["histogram_usec"]).items():
            rows.append((str(command), int(usec), int(calls), int(calls) / int(told["calls"])))
    why = "" if rows else "nothing was called, or latency-tracking is off"
    return _frame(rows, ["command", "usec", "calls", "share"], 1, why)


def events(client: redis.Redis) -> pd.DataFrame:
    """Return what stalled the server: forks, eviction, expiry, slow commands, as LATENCY LATEST.

    Returns:
        The tidy frame (event, at, latest_ms, max_ms). One command.
    """
    found = _sent(client, "LATENCY LATEST")
    rows = [(str(event), _when(at), int(last), int(most)) for event, at, last, most, *_ in found]
    why = "" if rows else "none, or latency-monitor-threshold is 0: then the server keeps none"
    return _frame(rows, ["event", "at", "latest_ms", "max_ms"], 1, why)


def memory(client: redis.Redis) -> pd.DataFrame:
    """Return what the server's memory is used for, and how near its limit it is.

    Returns:
        The tidy frame (name, value, said): used, limit, share, peak, dataset, clients,
        fragmentation, policy, evicted. value: bytes, of share and fragmentation ratios, NaN where
        there is none, as of a limit that is not set; said: the same for people. One command.
    """
    told = values(client, "memory", "stats")
    limit = told.get("maxmemory") or np.nan
    rows = [
        (name, told.get(where, np.nan), _bytes(told.get(where, np.nan)))
        for name, where in {
            "used": "used_memory",
            "peak": "used_memory_peak",
            "dataset": "used_memory_dataset",
            "clients": "mem_clients_normal",
        }.items()
    ]
    share = told["used_memory"] / limit
    rows.insert(1, ("limit", limit, _bytes(limit) if limit == limit else "no limit"))
    rows.insert(2, ("share", share, f"{share:.0%}" if share == share else "no limit"))
    ratio = told.get("mem_fragmentation_ratio", np.nan)
    rows += [
        ("fragmentation", ratio, f"{ratio:g} times what is used is held"),
        ("policy", np.nan, told.get("maxmemory_policy", "unknown")),
        ("evicted", told.get("evicted_keys", np.nan), f"{told.get('evicted_keys', 0)} keys"),
    ]
    return _frame(rows, ["name", "value", "said"], 1)


def keys(client: redis.Redis, prefix: str = "", sample: int = SAMPLE) -> pd.DataFrame:
    """Return a sample of the keys, with what each weighs and how long it has.

    SCAN in steps of 100 keys, then for those of a step one pipeline. Which keys come first is by
    their hashes, so what they share is a fair sample of what all do. No key's idle time changes.

    Args:
        client: Of one server.
        prefix: Of the keys.
        sample: Keys, at most. Where few match, as many steps are made as for a sample that all
            match, at least ten.

    Returns:
        The tidy frame (key, type, bytes, ttl, idle, freq). ttl: seconds left, NaN for a key that
        never expires; idle: seconds since it was used, NaN under an LFU policy; freq: the counter
        of an LFU policy, NaN under another. ``attrs["whole"]``: whether these are all. Some four
        commands a key.
    """
    sample = _check.whole("sample", sample, least=1, most=1_000_000)
    match = _escaped(_check.text("prefix", prefix)) + "*"
    node: Any = _one(client)
    found: dict[bytes, tuple[Any, ...]] = {}
    cursor, used = 0, 0
    for _ in range(max(10, -(-sample // STEP))):
        looks = ("MATCH", match, "COUNT", STEP)
        cursor, names = _sent(node, "SCAN", cursor, *looks, raw=True)
        cursor = int(cursor)
        new = [name for name in names if name not in found][: sample - len(found)]
        found |= dict(zip(new, _looked_at(node, new), strict=True))
        used += 1 + 5 * len(new)
        if cursor == 0 or len(found) >= sample:
            break
    rows = [
        (name.decode(errors="backslashreplace"), *row)
        for name, row in found.items()
        if row[0] != "none"  # gone meanwhile
    ]
    why = "" if cursor == 0 else f"a sample: of the keys {len(rows)} were looked at"
    frame = _frame(rows, KEYS, used, why).astype({"bytes": float, "ttl": float})
    frame.attrs["whole"] = cursor == 0
    return frame


def big_keys(
    client: redis.Redis, prefix: str = "", sample: int = SAMPLE, top: int = 10
) -> pd.DataFrame:
    """Return the biggest keys of a sample, biggest first: the frame of `keys`, and share.

    share: of the sample's bytes, 0 to 1. What is not in the sample is not seen.
    """
    frame = keys(client, prefix, sample)
    frame["share"] = frame["bytes"] / frame["bytes"].sum()
    return _sorted(frame, "bytes").head(_check.whole("top", top, least=1))


def hot_keys(
    client: redis.Redis, prefix: str = "", sample: int = SAMPLE, top: int = 10
) -> pd.DataFrame:
    """Return the keys of a sample that are used most, most first: the frame of `keys`, and reads.

    Under an LFU policy a key's counter grows ever more slowly, by one in so many uses, and loses
    one a minute; reads is how many uses it stands for, as a rule to within half and double. Under
    another policy the server does not count: then the keys come by how lately they were used, reads
    is NaN, ``attrs["why"]`` says so, and who wants to know counts in the client.
    """
    frame = keys(client, prefix, sample)
    top = _check.whole("top", top, least=1)
    factor, used = _setting(client, "lfu-log-factor", LFU_FACTOR)
    above = frame["freq"] - LFU_START
    frame["reads"] = (above + factor * above * (above - 1) / 2).clip(lower=0)
    frame["share"] = frame["reads"] / max(frame["reads"].sum(), 1)
    if frame["reads"].notna().any():
        frame = _sorted(frame, "reads")
    else:
        frame = _sorted(frame, "idle", ascending=True)
        frame.attrs["why"] = (
            "no LFU policy: the server does not count uses; these were used last. "
            "Count reads in the client."
        )
    frame.attrs["commands"] += used
    return frame.head(top)


def by_prefix(frame: pd.DataFrame, mark: str = ":", parts: int = 1) -> pd.DataFrame:
    """Return what the keys of a frame of `keys` share, by what their names begin with.

    Args:
        frame: Of `keys`, `big_keys` or `hot_keys`.
        mark: What stands between the parts of a name.
        parts: How many of them are the prefix; a name with no more has the prefix "".

    Returns:
        The tidy frame (prefix, keys, bytes, share, immortal, freq), most bytes first. share: of
        the bytes, 0 to 1; immortal: of the keys, those that never expire; freq: the mean counter.
    """
    split = frame["key"].str.split(mark, n=parts)
    names = split.map(lambda all: mark.join(all[:parts]) + mark if len(all) > parts else "")
    by = frame.assign(prefix=names, immortal=frame["ttl"].isna()).groupby("prefix")
    found = by.agg(
        keys=("key", "size"), bytes=("bytes", "sum"), immortal=("immortal", "mean"),
        freq=("freq", "mean"),
    ).reset_index()  # fmt: skip
    found.insert(3, "share", found["bytes"] / max(found["bytes"].sum(), 1))
    return _sorted(_told(found, 0), "bytes")


def sampled(
    client: redis.Redis,
    seconds: float,
    every: float = 1.0,
    note: Callable[[pd.DataFrame], object] | None = None,
) -> pd.DataFrame:
    """Watch for some seconds, and return what happened from each look to the next.

    Args:
        client: Of one server.
        seconds: How long.
        every: Seconds from one look to the next.
        note: Called with the frame so far after each look, as for a live chart.

    Returns:
        The tidy frame (at, commands, hits, misses, hit_rate, evicted, expired, connections,
        clients, used, out), a row a look. at: seconds since the first; commands and those that
        follow are a second's; hit_rate 0 to 1, NaN when nothing was read; clients and used (bytes)
        are as they stand; out: bytes sent a second. All are NaN while the server does not answer,
        and what grew meanwhile comes with its next answer. One command a look, not counted.
    """
    seconds = _check.number("seconds", seconds, above=0, high=_check.LONGEST_WAIT)
    every = _check.number("every", every, above=0, high=_check.LONGEST_WAIT)
    rows: list[tuple[float, ...]] = []
    wanted = ("stats", "clients", "memory")
    began = then = seen = time.monotonic()
    before = values(client, *wanted)
    frame = _series(rows)
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(left, max(0.0, then + every - time.monotonic())))
        looked = time.monotonic()
        try:
            after = values(client, *wanted)
        except (redis.ConnectionError, redis.TimeoutError):
            rows.append((looked - began, *[np.nan] * (len(COLUMNS) - 1)))
        else:
            rows.append(_look(before, after, looked - seen, looked - began))
            before, seen = after, looked
        then = looked
        frame = _series(rows)
        if note is not None:
            note(frame)
    return frame


def percentiles(waits: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Return how long calls took, from what was noted of each.

    Args:
        waits: {name: seconds, one a call}.

    Returns:
        The tidy frame (name, n, p50_ms, p95_ms, p99_ms).

    >>> percentiles({"get": [0.001, 0.002, 0.009]})["p50_ms"].tolist()
    [2.0]
    """
    rows = [
        (name, len(ones), *np.percentile(1000 * np.array(ones or [np.nan]), PERCENTILES))
        for name, ones in waits.items()
    ]
    return _frame(rows, ["name", "n", *(f"p{one}_ms" for one in PERCENTILES)], 0)


def beside(
    client: redis.Redis, call: Callable[[], object], command: str, times: int = 1000
) -> pd.DataFrame:
    """Call, and return what the caller waited beside what the server took for the same calls.

    Args:
        client: Of one server, whose `latency` is read before and after; it counts all clients.
        call: Sends the command once.
        command: Its name in lower case, as `commands` shows it.
        times: Calls.

    Returns:
        The tidy frame (side, n, p50_usec, p95_usec, p99_usec), of the client and of the server. The
        server's are upper bounds: its histogram's steps double.

    Raises:
        ValueError: The server has seen fewer such commands than calls.
    """
    times = _check.whole("times", times, least=1)
    before = latency(client, command)
    waits = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        waits.append(1e6 * (time.perf_counter() - began))
    after = latency(client, command)
    steps = _steps(after) - _steps(before).reindex(_steps(after).index).ffill().fillna(0)
    seen = int(steps.max()) if len(steps) else 0
    if seen < times:
        raise ValueError(f"call must send {command!r} each time: {seen} in {times} calls")
    server = [float(steps.index[steps >= seen * one / 100][0]) for one in PERCENTILES]
    rows = [("client", times, *np.percentile(waits, PERCENTILES)), ("server", seen, *server)]
    columns = ["side", "n", *(f"p{one}_usec" for one in PERCENTILES)]
    return _frame(rows, columns, 2)


# The replies, of RESP2 and RESP3 alike


def _one(client: redis.Redis) -> redis.Redis:
    if is_cluster(client):
        way = "ask one node: cluster.get_redis_connection(cluster.get_default_node())"
        raise TypeError(f"client must be of one server, not of a cluster: {way}")
    return client


def _sent(client: redis.Redis, command: str, *arguments: Any, raw: bool = False) -> Any:
    """Return the reply as it comes, as text unless it is to be raw, whatever the client decodes."""
    if command == "INFO":  # redis-py parses those of the names that it knows
        command, arguments = " ".join(["INFO", *(arguments or ["default"])]), ()
    reply = _one(client).execute_command(command, *arguments, NEVER_DECODE=True)
    return reply if raw else _text(reply)


def _text(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode(errors="backslashreplace")
    if isinstance(reply, list):
        return list(map(_text, reply))
    if isinstance(reply, dict):
        return {_text(name): _text(value) for name, value in reply.items()}
    return reply


def _lines(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (section, name, value) of the lines of INFO."""
    section = ""
    for line in text.splitlines():
        if line.startswith("#"):
            section = line[1:].strip().lower()
        elif ":" in line:
            name, _, value = line.partition(":")
            yield section, name, value


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _reads(told: Mapping[str, Any] | Stats) -> dict[str, Any]:
    if isinstance(told, Stats):
        return {"hits": told.hits, "misses": told.misses}
    return {what: told.get(f"keyspace_{what}", 0) for what in ("hits", "misses")}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _pairs(found: Any) -> dict[Any, Any]:
    if isinstance(found, dict):
        return found
    return dict(zip(found[::2], found[1::2], strict=True))


def _when(at: Any) -> pd.Timestamp:
    return pd.Timestamp(int(at), unit="s")


def _entry(kind: str, unit: str, entry: list[Any]) -> tuple[Any, ...]:
    """Return a row of SLOWLOG or COMMANDLOG; the server itself leaves passwords out of some."""
    _, at, amount, words, *whose = entry
    name, *rest = (word.decode(errors="backslashreplace") for word in words)
    command = name.lower()
    shown = rest[:1] if command not in PRIVATE else []
    more = f"({len(rest) - len(shown)} more)" if len(rest) > len(shown) else ""
    text = " ".join(filter(None, [name, *map(_shortened, shown), more]))
    client = whose[0].decode() if whose else ""
    return kind, _when(at), int(amount), unit, command, text, client


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return shlex.quote(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...")


def _looked_at(client: redis.Redis, names: list[bytes]) -> list[tuple[Any, ...]]:
    """Return (type, bytes, ttl, idle, freq) of each key: what is refused or not there is NaN."""
    block = client.pipeline(transaction=False)
    for name in names:
        block.execute_command("TYPE", name, NEVER_DECODE=True)
        block.execute_command("MEMORY USAGE", name, "SAMPLES", NESTED)
        block.execute_command("PTTL", name)
        block.execute_command("OBJECT IDLETIME", name)
        block.execute_command("OBJECT FREQ", name)
    replies = block.execute(raise_on_error=False)
    rows = []
    for at in range(0, len(replies), 5):
        kind, *numbers = replies[at : at + 5]
        size, left, idle, freq = (
            one if isinstance(one, int) and one >= 0 else np.nan for one in numbers
        )
        kind = kind.decode() if isinstance(kind, bytes) else "unknown"
        rows.append((kind, size, left / 1000, idle, freq))
    return rows


def _setting(client: redis.Redis, name: str, otherwise: float) -> tuple[float, int]:
    """Return a setting, or what it is as a rule where CONFIG is refused."""
    try:
        return float(_pairs(_sent(client, "CONFIG GET", name)).get(name, otherwise)), 1
    except ResponseError:
        return otherwise, 1


def _escaped(prefix: str) -> str:
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in prefix)


def _steps(frame: pd.DataFrame) -> "pd.Series":
    return frame.set_index("usec")["calls"]


def _look(
    before: Mapping[str, Any], after: Mapping[str, Any], took: float, at: float
) -> tuple[float, ...]:
    grown = change(before, after)
    own = {"commands": 1}  # the INFO before
    row = {name: (grown[where] - own.get(name, 0)) / took for name, where in SERIES.items()}
    row |= {name: after[where] for name, where in LEVELS.items()}
    rate = hit_rate(before, after)
    row |= {"at": at, "hit_rate": np.nan if rate is None else rate}
    return tuple(row[name] for name in COLUMNS)


def _series(rows: list[tuple[float, ...]]) -> pd.DataFrame:
    return _frame(rows, COLUMNS, len(rows) + 1)


def _frame(rows: Iterable[Any], columns: list[str], used: int, why: str = "") -> pd.DataFrame:
    return _told(pd.DataFrame(list(rows), columns=columns), used, why)


def _told(frame: pd.DataFrame, used: int, why: str = "") -> pd.DataFrame:
    frame.attrs.update(commands=used, why=why)
    return frame


def _sorted(frame: pd.DataFrame, column: str, ascending: bool = False) -> pd.DataFrame:
    return frame.sort_values(column, ascending=ascending, kind="stable", ignore_index=True)


def _bytes(number: float) -> str:
    if number != number:
        return "unknown"
    for unit in ("B", "kB", "MB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} GB"
