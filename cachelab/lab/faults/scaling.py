"""What several machines do under load: copies that lag, one breaker for all shards, a slot moved.

All of it acts on the practice sets, whose nodes are `cachelab.server.Node`s.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

import pandas as pd
import redis
from matplotlib.axes import Axes

from cachelab import _check
from cachelab.cache.aside import CacheAside
from cachelab.lab.draw import charts
from cachelab.server.cluster import SLOTS, Cluster
from cachelab.server.node import Command, Node, PracticeSet

COUNTED = ["total_commands_processed", "total_reads_processed"]  # of INFO
PATIENCE = 1000  # ms that a key may take to move
EVERY = 0.25  # seconds in which reads and writes are counted together
ROLES = {
    "served": "cache",
    "acknowledged": "cache",
    "stale": "database",
    "loaded": "database",
    "acknowledged, and lost": "database",
    "failed": "threads",  # in grey
    "not sure": "threads",
}


def primary(nodes: PracticeSet) -> Node:
    """Return the first node of a set that is a primary by its own account.

    Raises:
        LookupError: None is, as in the midst of a fail-over.
    """
    for node in nodes.nodes:
        if node.role == "primary":
            return node
    raise LookupError(f"{nodes!r} has no primary now: it needs some seconds to agree on one")


def replicas(nodes: PracticeSet) -> list[Node]:
    """Return the nodes of a set that are replicas by their own account."""
    return [node for node in nodes.nodes if node.role == "replica"]


def fall_behind(leader: Node, copies: Sequence[Node]) -> None:
    """Freeze copies and drop what is on its way to them, as a line that breaks does.

    What the primary writes from now on they do not have, and `Node.thaw` does not bring it.
    """
    for copy in copies:
        copy.freeze()
    leader.ask(("CLIENT", "KILL", "TYPE", "replica"))


def die_behind(leader: Node, copies: Sequence[Node], pause: float = 0.6) -> None:
    """Kill a primary whose copies have fallen behind for a while, and let the copies go on.

    Args:
        leader: The primary.
        copies: Its replicas, which may have fallen behind already.
        pause: Seconds until it dies: fewer than Sentinels wait for the copies.
    """
    pause = _check.number("pause", pause)
    fall_behind(leader, copies)
    time.sleep(pause)
    leader.kill()
    for copy in copies:
        copy.thaw()


def answer(node: Node, key: str) -> str:
    """Say what a node answers to who asks it for a key: "has it", "nothing", or an error's name."""
    try:
        return "nothing" if node.ask(("GET", key)) == [None] else "has it"
    except redis.RedisError as error:
        return type(error).__name__


def one_breaker(cache: CacheAside) -> CacheAside:
    """Let a cache on a cluster have one breaker for all shards, as a client wrapped in one has it.

    For comparison: `CacheAside` has one for each shard. Returns the cache, which is changed.
    """
    cache._gates._shard = lambda key: ""  # type: ignore[method-assign]
    return cache


def work(nodes: Sequence[Node], call: Callable[[], object]) -> pd.DataFrame:
    """Return what a call makes nodes do, read from their INFO before and after.

    Returns:
        DataFrame(node, commands, trips, seconds). trips: how often a node read from a connection,
        which is once for all the commands of a pipeline that is not long; seconds: of processor.
        Of each, what looking costs is taken off as an equal look at nothing has shown it.
    """
    first, second = _looked(nodes), _looked(nodes)
    call()
    done = _looked(nodes) - second - (second - first)
    done["seconds"] = done["seconds"].clip(lower=0.0)
    return done.rename_axis("node").reset_index()


def move_slot(cluster: Cluster, slot: int, target: Node) -> Iterator[str]:
    """Move a slot to another primary as redis-cli does, key by key, and stop after each step.

    Between two steps the slot is on its way: its keys are asked for at the target where they are
    no longer at the source (ASK), and once all know the new place, there at once (MOVED).

    Args:
        cluster: A cluster that is whole.
        slot: One that another primary has.
        target: The primary that gets it.

    Yields:
        What was done: "open", the key that has moved, for each, and "closed".

    Raises:
        ValueError: The target has the slot already, or is no primary.
    """
    slot = _check.whole("slot", slot, least=0, most=SLOTS - 1)
    primaries = {_name(node): node for node in cluster.nodes if node.role == "primary"}
    source, new = _owner(primaries, slot), _name(target)
    if new not in primaries or new == source:
        raise ValueError(f"target must be a primary that does not have slot {slot}: {target!r}")
    target.ask(("CLUSTER", "SETSLOT", slot, "IMPORTING", source))
    primaries[source].ask(("CLUSTER", "SETSLOT", slot, "MIGRATING", new))
    yield "open"
    [keys] = primaries[source].ask(("CLUSTER", "GETKEYSINSLOT", slot, 10_000))
    for key in keys:
        move: Command = ("MIGRATE", "127.0.0.1", target.port, key, 0, PATIENCE)
        primaries[source].ask((*move, "AUTH", str(urlsplit(target.url).password)))
        yield key
    rest = [node for node in primaries.values() if node is not target]
    for node in (target, *rest):  # the target first, or nobody would have it for a moment
        node.ask(("CLUSTER", "SETSLOT", slot, "NODE", new))
    yield "closed"


def over_time(reads: pd.DataFrame, every: float = EVERY) -> pd.DataFrame:
    """Count reads, or writes, by what became of them in each interval of time.

    Args:
        reads: DataFrame(began, outcome).
        every: Seconds.

    Returns:
        DataFrame(began, outcome, count): a row for each interval and outcome, of 0 too.
    """
    every = _check.number("every", every, above=0)
    bins = (reads["began"] // every).astype(int)
    counts = reads.groupby([bins, "outcome"]).size().unstack(fill_value=0)
    counts = counts.reindex(range(bins.max() + 1), fill_value=0)[reads["outcome"].unique()]
    counts.index = every * counts.index.rename("began")
    return counts.melt(ignore_index=False, value_name="count").reset_index()


def chart(df: pd.DataFrame, title: str, what: str, name: str | None = None) -> Axes:
    """Draw what became of reads or writes over time, as `over_time` counts it.

    Args:
        df: DataFrame(began, outcome).
        title: The finding.
        what: "reads" or "writes".
        name: File name of the figure kept.
    """
    roles = {outcome: ROLES[outcome] for outcome in df["outcome"].unique() if outcome in ROLES}
    look = {"xlabel": "seconds since the start", "ylabel": f"{what} in {EVERY:g} s"}
    return charts.timeline(
        over_time(df),
        "began",
        "count",
        "outcome",
        title=title,
        name=name,
        roles=roles,
        steps=True,
        **look,
    )


def _looked(nodes: Sequence[Node]) -> pd.DataFrame:
    rows = {}
    for at, node in enumerate(nodes, 1):
        [told] = node.ask(("INFO", "all"))
        seconds = told["used_cpu_user"] + told["used_cpu_sys"]
        rows[f"node {at}"] = [*(told[name] for name in COUNTED), seconds]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["commands", "trips", "seconds"])


def _name(node: Node) -> str:
    return str(node.ask(("CLUSTER", "MYID"))[0])


def _owner(primaries: dict[str, Node], slot: int) -> str:
    [ranges] = next(iter(primaries.values())).ask(("CLUSTER", "SLOTS"))
    return str(next(node[2] for first, last, node, *_ in ranges if first <= slot <= last))
