"""What is odd about a server that is in use as a cache: read-only, gentle, and never an error.

Four commands that the server answers from what it has counted, one step of SCAN and at most a
hundred MEMORY USAGE. What the user's rights do not allow is said, and left out.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

Row = tuple[str, str, str, str]  # part, state, detail, mend
Info = Mapping[str, Any]
Link = Any  # a redis.Redis

KEYS = 100  # whose weight is asked for
BIG = 2**20  # bytes
FEW = 1000  # reads or keys, below which a share says nothing
FULL = 0.9  # of the limit
CLIENT_SHARE = 0.8  # of maxclients
FRAGMENTED = 1.5, 100 * 2**20  # times, and bytes: both
DEAR = 1000  # microseconds, on average, of a command that looks through much
SHOWN = 5  # kinds of errors; a script may reply with one of its own
OFTEN = 10  # calls: what is called less often is a person's
PERSONS = frozenset({"config|get", "config|set", "info", "scan"})  # no program's commands

NAMES = (
    "limit", "policy", "expiry", "hit rate", "connections", "errors", "persistence",
    "fragmentation", "commands", "slow", "stalls", "big values",
)  # fmt: skip


def checkup(link: Link, info: Info) -> Iterator[Row]:
    """Yield a row for each thing that is worth a look, the odd ones with what mends them.

    Args:
        link: Of the server.
        info: What ``link.info()`` returned.
    """
    for look in (limit, policy, expiry, hit_rate, connections, errors, persistence, fragmentation):
        yield look(info)
    asks: dict[str, tuple[Callable[[Link], Row], str]] = {
        "commands": (commands, "info"),
        "slow": (slow, "slowlog|get"),
        "stalls": (stalls, "latency|latest"),
        "big values": (big_values, "scan +memory|usage"),
    }
    for part, (ask, rights) in asks.items():
        try:
            yield ask(link)
        except NoPermissionError:
            told = f"not allowed here (+{rights}), left out"
            yield part, "refused", told, f"ACL SETUSER <user> +{rights}  # who administers it"
        except ResponseError as error:  # an older or a hosted server may lack a command
            told = f"this server does not tell: {str(error).splitlines()[0][:60]}"
            yield part, "refused", told, "ask who runs the server"


def limit(info: Info) -> Row:
    """How much memory the server may use, and how much of that it does."""
    used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
    if not most:
        told = f"{_mb(used)} used, no limit: it grows until the machine has no memory left"
        return "limit", "odd", told, "CONFIG SET maxmemory 256mb  # and in its configuration"
    told = f"{_mb(used)} of {_mb(most)} used"
    if used > FULL * most and info.get("maxmemory_policy") == "noeviction":
        way = "CONFIG SET maxmemory-policy allkeys-lfu  # or a higher maxmemory"
        return "limit", "odd", f"{told}: soon it refuses to store", way
    return "limit", "ok", told, ""


def policy(info: Info) -> Row:
    """Which keys it evicts when it is full."""
    name = info.get("maxmemory_policy", "unknown")
    keys, expiring = _keys(info)
    way = "CONFIG SET maxmemory-policy allkeys-lfu  # and in its configuration"
    if name == "noeviction":
        return "policy", "odd", "noeviction: when it is full, a cache stores nothing more", way
    if name.startswith("volatile-") and keys and not expiring:
        return "policy", "odd", f"{name}, and no key expires: nothing may be evicted", way
    return "policy", "ok", name, ""


def expiry(info: Info) -> Row:
    """How many of the keys never expire."""
    keys, expiring = _keys(info)
    told = f"{keys - expiring:,} of {keys:,} keys never expire"
    if keys and keys - expiring > keys / 10:
        return "expiry", "odd", told, "client.set(key, value, ex=300)  # an expiry for each entry"
    return "expiry", "ok", told, ""


def hit_rate(info: Info) -> Row:
    """How many of the reads found their key since the server started."""
    hits, misses = info.get("keyspace_hits", 0), info.get("keyspace_misses", 0)
    gone = f"{info.get('evicted_keys', 0):,} evicted, {info.get('expired_keys', 0):,} expired"
    if hits + misses == 0:
        return "hit rate", "ok", f"nothing was read yet; {gone}", ""
    told = f"{hits / (hits + misses):.0%} of {hits + misses:,} reads; {gone}"
    if hits + misses >= FEW and hits < misses:
        many = info.get("evicted_keys", 0) > info.get("expired_keys", 0)
        way = "a higher maxmemory" if many else "longer expiries, names that come again"
        return "hit rate", "odd", told, f"{way}  # notebook 06 says which"
    return "hit rate", "ok", told, ""


def connections(info: Info) -> Row:
    """Whether clients were turned away, or make a connection for each command."""
    now, most = info.get("connected_clients", 0), info.get("maxclients", 0)
    opened, sent = (
        info.get(f"total_{name}", 0) for name in ("connections_received", "commands_processed")
    )
    told = f"{now:,} open of {most:,}, {opened:,} since it started"
    if turned_away := info.get("rejected_connections", 0):
        way = "one client for each process, with a pool  # or a higher maxclients"
        return "connections", "odd", f"{told}, {turned_away:,} turned away", way
    if most and now > CLIENT_SHARE * most:
        return "connections", "odd", told, "one client for each process, with a pool"
    if opened >= FEW and sent < 10 * opened:
        told += f": one for {sent / opened:.1f} commands"
        return "connections", "odd", told, "one client for each process  # notebook 02"
    return "connections", "ok", told, ""


def errors(info: Info) -> Row:
    """Which errors it has answered."""
    kinds = {
        name.removeprefix("errorstat_"): told["count"]
        for name, told in info.items()
        if name.startswith("errorstat_") and isinstance(told, dict)
    }
    often = sorted(kinds, key=lambda kind: -kinds[kind])[:SHOWN]
    more = f" and {len(kinds) - SHOWN} other kinds" if len(kinds) > SHOWN else ""
    told = (", ".join(f"{kind} {kinds[kind]:,}" for kind in often) or "none") + more
    if "OOM" in kinds:
        way = "CONFIG SET maxmemory-policy allkeys-lfu  # or a higher maxmemory"
        return "errors", "odd", f"{told}: it was full, and refused to store", way
    return "errors", "ok", told, ""


def persistence(info: Info) -> Row:
    """Whether what it keeps on disk can be kept."""
    kept = "append-only file" if info.get("aof_enabled") else "no append-only file"
    told = f"{kept}, {info.get('rdb_saves', 0):,} snapshots"
    asked = {"snapshot": "rdb_last_bgsave_status", "log": "aof_last_write_status"}
    failed = [what for what, name in asked.items() if info.get(name, "ok") != "ok"]
    if failed:
        told += f"; the last {' and '.join(failed)} failed: it may refuse all writes"
        return "persistence", "odd", told, 'CONFIG SET save ""  # a cache can do without'
    return "persistence", "ok", told, ""


def fragmentation(info: Info) -> Row:
    """Whether it holds much more memory than it uses, or less: then some of it is on disk."""
    ratio = info.get("mem_fragmentation_ratio", 1.0)
    held, used = info.get("used_memory_rss", 0), info.get("used_memory", 0)
    told = f"{_mb(held)} held for {_mb(used)}"
    times, least = FRAGMENTED
    if ratio > times and held - used > least:
        return "fragmentation", "odd", told, "CONFIG SET activedefrag yes  # or a restart at night"
    if used - held > least:
        return "fragmentation", "odd", f"{told}: it may be swapped", "a lower maxmemory"
    return "fragmentation", "ok", told, ""


def commands(link: Link) -> Row:
    """What most of its time goes to, and whether something walks through all keys."""
    stats = {
        name.removeprefix("cmdstat_"): told
        for name, told in link.info("commandstats").items()
        if name.startswith("cmdstat_") and name.removeprefix("cmdstat_") not in PERSONS
    }
    if not stats:
        return "commands", "ok", "none yet", ""
    total = sum(one["usec"] for one in stats.values()) or 1
    dearest = max(stats, key=lambda name: stats[name]["usec"])
    told = f"{dearest} takes {stats[dearest]['usec'] / total:.0%} of its time"
    walks = [
        f"{name} {one['calls']:,} times, {one['usec_per_call'] / 1000:.2g} ms each"
        for name, one in stats.items()
        if one["calls"] >= OFTEN and (name == "keys" or one["usec_per_call"] > DEAR)
    ]
    if walks:
        way = "SCAN in steps, or a set that keeps the names  # notebook 02b"
        return "commands", "odd", f"{told}; {', '.join(walks)}", way
    return "commands", "ok", told, ""


def slow(link: Link) -> Row:
    """What it has noted as slow; of the arguments nothing is shown."""
    noted = link.execute_command("SLOWLOG", "GET", 10, NEVER_DECODE=True)
    if not noted:
        return "slow", "ok", "no command was slow enough to be noted", ""
    worst = max(noted, key=lambda entry: entry[2])
    name = worst[3][0].decode(errors="backslashreplace")[:40]
    told = f"{len(noted)} of late, the longest {name} with {worst[2] / 1000:,.3g} ms"
    return "slow", "odd", told, "SLOWLOG GET 10  # shows who sends it"


def stalls(link: Link) -> Row:
    """What has held it up."""
    found = link.execute_command("LATENCY LATEST")
    if not found:
        return "stalls", "ok", "none noted (latency-monitor-threshold may be 0)", ""
    worst = max(found, key=lambda entry: entry[3])
    told = f"{worst[0]} took {worst[3]:,} ms at most"
    return "stalls", "odd", told, "LATENCY DOCTOR  # explains each of them"


def big_values(link: Link) -> Row:
    """What the keys of one step of SCAN weigh."""
    names = link.execute_command("SCAN", 0, "COUNT", KEYS, NEVER_DECODE=True)[1][:KEYS]
    block = link.pipeline(transaction=False)
    for name in names:
        block.execute_command("MEMORY USAGE", name, "SAMPLES", 5)
    replies = block.execute(raise_on_error=False)
    if refused := [one for one in replies if isinstance(one, Exception)]:
        raise refused[0]
    sizes = [size or 0 for size in replies]
    if not sizes:
        return "big values", "ok", "no keys", ""
    told = f"{max(sizes):,} bytes at most, of {len(sizes)} keys"
    if max(sizes) > BIG:
        name = names[sizes.index(max(sizes))].decode(errors="backslashreplace")
        told += f": {name[:40]!r}"
        return "big values", "odd", told, "store the part that is read  # notebook 13"
    return "big values", "ok", told, ""


def _keys(info: Info) -> tuple[int, int]:
    """Return how many keys there are, and how many of them expire."""
    spaces = [
        told for name, told in info.items() if name.startswith("db") and "keys" in _dict(told)
    ]
    return sum(one["keys"] for one in spaces), sum(one["expires"] for one in spaces)


def _dict(told: object) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}


def _mb(count: float) -> str:
    return f"{count / 2**20:,.0f} MB"
