"""Where a cache is tried: on one server, or on a practice set, whose URL is of another scheme."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import redis

from cachelab.errors import ServerError
from cachelab.lab.contract.detour import Detour
from cachelab.lab.measure.link import Link
from cachelab.server.cluster import Cluster
from cachelab.server.node import Node
from cachelab.server.sentinel import Sentinel
from cachelab.server.server import Server

WHOLE_WITHIN = 30.0  # seconds; a set takes some two after all its nodes were killed
LOOK_EVERY = 0.02  # seconds between two looks at a set
NEVER_THEIRS = {"info"}  # a command that is not the cache's
OF_A_SET = {"info", "ping", "publish", "replconf"}  # what nodes send each other, too


class Network(Protocol):
    """What stands between one cache, or all of them, and Redis."""

    @property
    def url(self) -> str: ...
    def cut(self) -> None: ...
    def heal(self) -> None: ...


FailOver = tuple[str, Callable[[], object], Callable[[], int]]


class OneServer:
    """A server of its own, as it comes from `Server`."""

    def __init__(self, server: Server):
        self.url = server.url
        self.kill = server.kill
        self.freeze = server.freeze
        self.thaw = server.thaw
        self.restart = server.restart

    def client(self) -> Any:
        """Return a plain client."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def link(self) -> Any:
        """Return a link, not started, in front of the server: a `Network`."""
        return Link(self.url)

    def on_each(self, *words: str) -> None:
        """Send a command to every server that keeps data."""
        with self.client() as client:
            client.execute_command(*words)

    def commands(self, client: Any) -> int:
        """Return how many commands have come, as a client learns that has been in use."""
        return _calls(client.info("commandstats"), NEVER_THEIRS)

    def pieces(self, client: Any) -> int:
        """Return how many pieces of commands have come, each by one read of the server."""
        return client.info("stats")["total_reads_processed"]

    def mistakes(self) -> dict[str, str]:
        """Return URLs in which a word is wrong, which is the key."""
        wrong = re.sub(r":[^:@]+@", ":wrong@", self.url)
        return {"password": wrong, "database": re.sub(r"/0$", "/99", self.url)}

    @contextmanager
    def failing_over(self) -> Iterator[FailOver]:
        """Yield a URL, what makes it lead to a new primary, and what counts the keys there."""
        with Server() as primary, Detour(self.url) as address, OneServer(primary).client() as new:
            new.config_set("requirepass", urlsplit(self.url).password)

            def fail_over() -> None:
                address.port = primary.port
                self.on_each("REPLICAOF", "127.0.0.1", str(primary.port))

            yield address.url, fail_over, new.dbsize


class OnSet:
    """A practice set that outlives the trial: before it, the set is made whole again.

    It belongs to the process that started it, so that trials on it cannot have one of their own.

    Args:
        nodes: The set, started with links where links are to be cut.
    """

    def __init__(self, nodes: Cluster | Sentinel):
        self._set = nodes
        self.url = nodes.url
        listed = {int(port) for port in re.findall(r":(\d+)\b", self.url.rpartition("@")[2])}
        self._sentinels = [node for node in nodes.nodes if node.announced in listed]
        if isinstance(nodes, Cluster):
            self._sentinels = []
        self._servers = [node for node in nodes.nodes if node not in self._sentinels]
        self._start_again()
        self._clear()

    def kill(self) -> None:
        """Kill every node, Sentinels first: they would replace what dies."""
        for node in reversed(self._set.nodes):
            node.kill()

    def freeze(self) -> None:
        """Stop every server; Sentinels see that."""
        for node in self._servers:
            node.freeze()

    def thaw(self) -> None:
        for node in self._servers:
            node.thaw()

    def restart(self) -> None:
        """Start every node again."""
        _restart(self._servers)
        _restart(self._sentinels)

    def client(self) -> Any:
        """Return a client of the cluster, or of the server that is the primary now."""
        if isinstance(self._set, Cluster):
            place = urlsplit(self._servers[0].url)
            return redis.RedisCluster(
                "127.0.0.1", place.port, password=place.password, decode_responses=True
            )
        primary = next(node for node in self._servers if node.role == "primary")
        return redis.Redis.from_url(primary.url, decode_responses=True)

    @contextmanager
    def link(self) -> Iterator[Network]:
        """Yield the links of all nodes as one `Network`, healed at the end."""
        network = _Links(self._set)
        try:
            yield network
        finally:
            network.heal()

    def on_each(self, *words: str) -> None:
        """Send a command to every server that keeps data."""
        for node in self._servers:
            node.ask(words)

    def commands(self, client: Any) -> int:
        """Return how many commands have come from clients."""
        if not isinstance(self._set, Cluster):
            return _calls(client.info("commandstats"), OF_A_SET)
        each = _primaries(client)
        return sum(_calls(server.info("commandstats"), OF_A_SET) for server in each)

    def pieces(self, client: Any) -> int:
        """Return how many pieces of commands have come, some of them from other nodes."""
        return sum(server.info("stats")["total_reads_processed"] for server in _primaries(client))

    def mistakes(self) -> dict[str, str]:
        return {"password": re.sub(r":[^:@]+@", ":wrong@", self.url)}

    @contextmanager
    def failing_over(self) -> Iterator[FailOver]:
        yield self.url, self._fail_over, self._keys

    def _start_again(self) -> None:
        """Have all nodes there, as a set."""
        if not all([_thawed(node) for node in self._set.nodes]):
            self.restart()
        _wait_for(self._is_whole)

    def _clear(self) -> None:
        """Have no data and no limits."""
        self.on_each("CONFIG", "SET", "maxmemory", "256mb")
        self.on_each("ACL", "SETUSER", "default", "+@all")
        with self.client() as client:
            client.flushall()

    def _fail_over(self) -> None:
        """Have replicas promoted, on a cluster in every shard, and wait until all know it."""
        before = [node for node in self._servers if node.role == "primary"]
        if isinstance(self._set, Cluster):
            for node in self._servers:
                if node not in before:
                    node.ask(("CLUSTER", "FAILOVER"))
        else:
            self._sentinels[0].ask(("SENTINEL", "FAILOVER", self.url.rpartition("/")[2]))
            _wait_for(lambda: {node.announced for node in before} != self._named())
            _wait_for(self._is_whole)
        _wait_for(lambda: all(node.role == "replica" for node in before))

    def _is_whole(self) -> bool:
        """Say whether all nodes of the set work together."""
        try:
            if isinstance(self._set, Cluster):
                return all(map(self._set._is_whole, self._set.nodes))
            [port] = self._named()
            primary = next(node for node in self._servers if node.announced == port)
            states = [(node, node.ask(("ROLE",))[0]) for node in self._servers]
            for node, state in states:
                if node is not primary and state[0] == "master":
                    # Sentinels wait ten seconds before they order what no longer is the primary.
                    node.ask(("REPLICAOF", "127.0.0.1", port), ("CONFIG", "REWRITE"))
            return all(
                state[0] == "master" if node is primary else state[2:4] == [port, "connected"]
                for node, state in states
            )
        except (redis.RedisError, ValueError):
            return False

    def _named(self) -> set[int]:
        """Return the ports that the Sentinels take for the primary's."""
        asked = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.url.rpartition("/")[2])
        return {int(node.ask(asked)[0][1]) for node in self._sentinels}

    def _keys(self) -> int:
        with self.client() as client:
            return client.dbsize()


class _Links:
    """The links of a set's nodes, cut and healed as one."""

    def __init__(self, nodes: Cluster | Sentinel):
        self.url = nodes.url
        self._links = [node.link for node in nodes.nodes]

    def cut(self) -> None:
        for link in self._links:
            link.cut()

    def heal(self) -> None:
        for link in self._links:
            link.heal()


def _primaries(client: Any) -> list[Any]:
    """Return clients of a cluster's primaries, or of the one primary."""
    if not isinstance(client, redis.RedisCluster):
        return [client]
    return [client.get_redis_connection(node) for node in client.get_primaries()]


def _calls(stats: Mapping[str, Any], apart: set[str]) -> int:
    """Return how many commands INFO commandstats counts, some apart."""
    names = {name: name.removeprefix("cmdstat_").partition("|")[0] for name in stats}
    return sum(stats[name]["calls"] for name, command in names.items() if command not in apart)


def _thawed(node: Node) -> bool:
    """Let a node go on that was frozen; say whether it lives."""
    try:
        node.thaw()
    except ServerError:
        return False
    return True


def _restart(nodes: Sequence[Node]) -> None:
    if nodes:
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(Node.restart, nodes))


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WHOLE_WITHIN
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"the set did not get there within {WHOLE_WITHIN:g} s")
        time.sleep(LOOK_EVERY)
