"""A Redis cluster to practise on: real processes on loopback that share the 16,384 hash slots."""

import os
from collections.abc import Callable
from functools import partial

from cachelab import _check
from cachelab._secret import Secret
from cachelab.server.node import BUS, Command, Link, Node, PracticeSet, directives, wait_for

SLOTS = 16_384


class Cluster(PracticeSet):
    """Run a private cluster that lives as long as the process that started it, and no longer.

    Each node is what a `Server` is: on loopback only, on a free port, behind the one password of
    the set, gone with the block and with the process, however that ends. ::

        with Cluster() as cluster:
            client = connect(cluster.url)
            cluster.nodes[0].kill()

    A shard that is lost whole leaves the others at work, as a cache wants it: Redis' own default,
    ``cluster_require_full_coverage=True``, has them all refuse.

    Args:
        primaries: How many share the slots: at least 3, or no majority could replace a dead one.
        replicas: How many copies each of them has.
        node_timeout: Seconds after which a node that does not answer is taken for dead.
        links: A function of a node's URL that returns what is to stand in front of it, such as
            `cachelab.lab.measure.link.Link`: the nodes announce its ports, and clients and
            replicas go through it, the nodes' talk about who is alive does not.
        binary: Another server program, such as "redis-server".
        **config: Configuration of all nodes, as of a `Server`.

    Attributes:
        nodes: The nodes, the primaries first: each with kill, freeze, thaw, restart, role, port.

    Raises:
        TypeError: An argument is of another type.
        ValueError: A number is out of its range, or a configuration none.
        ServerError: When it starts: the cluster cannot be formed.
    """

    def __init__(
        self,
        primaries: int = 3,
        replicas: int = 1,
        *,
        node_timeout: float = 1.0,
        links: Callable[[str], Link] | None = None,
        binary: str | os.PathLike[str] | None = None,
        **config: str | int | bool,
    ) -> None:
        self._primaries = _check.whole("primaries", primaries, least=3, most=50)
        replicas = _check.whole("replicas", replicas, least=0, most=5)
        timeout = _check.number("node_timeout", node_timeout, low=0.1, high=3600)
        lines = directives(
            config,
            cluster_enabled=True,
            cluster_node_timeout=round(1000 * timeout),
            cluster_require_full_coverage=False,
        )
        super().__init__(
            [
                Node(lines, passwords=("masterauth",), has_bus=True, binary=binary)
                for _ in range(self._primaries * (1 + replicas))
            ],
            links,
        )

    @property
    def url(self) -> str:
        """The redis-cluster:// URL of all nodes, password included."""
        return Secret(f"redis-cluster://:{self._password}@{self._addresses(self.nodes)}")

    def _form(self) -> None:
        primaries, replicas = self.nodes[: self._primaries], self.nodes[self._primaries :]
        names = [self._introduce(at) for at in range(len(self.nodes))]
        for at, replica in enumerate(replicas):
            order = ("CLUSTER", "REPLICATE", names[at % len(primaries)])
            wait_for(partial(replica.ask, order), "The nodes did not meet")
        for node in self.nodes:
            wait_for(partial(self._is_whole, node), "The cluster did not form")

    def _introduce(self, at: int) -> str:
        """Give a node its slots and let it meet those before it; return its name."""
        node = self.nodes[at]
        # An epoch of its own for each, as redis-cli gives it: none has to be fought for.
        orders: list[Command] = [("CLUSTER", "SET-CONFIG-EPOCH", at + 1)]
        if node.link:
            ports = ("cluster-announce-port", node.announced)
            bus = ("cluster-announce-bus-port", node.port + BUS)
            orders += [("CONFIG", "SET", *ports, *bus), ("CONFIG", "REWRITE")]
        if at < self._primaries:
            first, end = (SLOTS * n // self._primaries for n in (at, at + 1))
            orders.append(("CLUSTER", "ADDSLOTSRANGE", first, end - 1))
        orders += [("CLUSTER", "MEET", "127.0.0.1", other.port) for other in self.nodes[:at]]
        return str(node.ask(*orders, ("CLUSTER", "MYID"))[-1])

    def _is_whole(self, node: Node) -> bool:
        """Say whether a node has seen all others, their slots, and its own primary."""
        state, shards, [role, *rest] = node.ask(
            ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"), ("ROLE",)
        )
        return (
            "cluster_state:ok" in state
            and sum(len(nodes) for _, _, *nodes in shards) == len(self.nodes)
            and (role == "master" or rest[2] == "connected")
        )
