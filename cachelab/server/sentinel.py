"""A primary with replicas to practise on, and the Sentinels that replace it when it fails."""

import os
import re
from collections.abc import Callable
from functools import partial

from cachelab import _check
from cachelab._secret import Secret
from cachelab.server.node import Command, Link, Node, PracticeSet, directives, wait_for

UNTROUBLED = {"master", "slave", "sentinel"}  # what a Sentinel says of who does as it should


class Sentinel(PracticeSet):
    """Run a private primary, its replicas and Sentinels, for as long as this process lives.

    Each node is what a `Server` is: on loopback only, on a free port, behind the one password of
    the set, gone with the block and with the process, however that ends. ::

        with Sentinel() as ha:
            client = connect(ha.url)
            ha.nodes[0].kill()

    Args:
        replicas: How many copies the primary has.
        sentinels: How many watch over it; a majority of them replaces it.
        service: The name that the primary has among the Sentinels.
        down_after: Seconds after which a Sentinel takes a node that does not answer for dead.
        links: A function of a node's URL that returns what is to stand in front of it, such as
            `cachelab.lab.measure.link.Link`: the nodes announce its ports, and clients, replicas
            and Sentinels go through it.
        binary: Another server program, such as "redis-server".
        **config: Configuration of the primary and its replicas, as of a `Server`.

    Attributes:
        nodes: The primary, the replicas, the Sentinels: each with kill, freeze, thaw, restart,
            role, port.

    Raises:
        TypeError: An argument is of another type.
        ValueError: A number is out of its range, or a name or a configuration none.
        ServerError: When it starts: the nodes do not come together.
    """

    def __init__(
        self,
        replicas: int = 2,
        sentinels: int = 3,
        *,
        service: str = "mymaster",
        down_after: float = 1.0,
        links: Callable[[str], Link] | None = None,
        binary: str | os.PathLike[str] | None = None,
        **config: str | int | bool,
    ) -> None:
        self._servers = 1 + _check.whole("replicas", replicas, least=1, most=20)
        sentinels = _check.whole("sentinels", sentinels, least=1, most=20)
        if not re.fullmatch(r"[\w.-]{1,100}", _check.text("service", service), re.ASCII):
            rule = "1 to 100 letters, digits, dots, dashes and underscores"
            raise ValueError(f"service must be {rule}, not {service[:40]!r}")
        self._service = service
        self._down_after_ms = round(
            1000 * _check.number("down_after", down_after, low=0.1, high=3600)
        )
        lines = directives(config)
        servers = [
            Node(lines, passwords=("masterauth",), binary=binary) for _ in range(self._servers)
        ]
        watchers = [
            Node([], passwords=("sentinel sentinel-pass",), is_sentinel=True, binary=binary)
            for _ in range(sentinels)
        ]
        super().__init__([*servers, *watchers], links)

    @property
    def url(self) -> str:
        """The redis-sentinel:// URL of all Sentinels, password included."""
        sentinels = self._addresses(self.nodes[self._servers :])
        return Secret(f"redis-sentinel://:{self._password}@{sentinels}/{self._service}")

    def _form(self) -> None:
        primary, *replicas = self.nodes[: self._servers]
        sentinels = self.nodes[self._servers :]
        for node in (primary, *replicas):
            orders: list[Command] = []
            if node.link:
                orders.append(("CONFIG", "SET", "replica-announce-port", node.announced))
            if node is not primary:
                orders.append(("REPLICAOF", "127.0.0.1", primary.announced))
            node.ask(*orders, ("CONFIG", "REWRITE"))
        for node in replicas:
            wait_for(partial(_follows, node), "A replica did not follow its primary")
        for node in sentinels:
            node.ask(*self._orders(node, primary, len(sentinels)), _publishing_every(100))
        for node in sentinels:
            wait_for(partial(self._sees_all, node), "The Sentinels did not find each other")
        for node in sentinels:
            node.ask(_publishing_every(2000))

    def _orders(self, node: Node, primary: Node, sentinels: int) -> list[Command]:
        """Return what tells a Sentinel whom to watch, and who it is."""
        settings: dict[str, str | int] = {
            "auth-pass": self._password,
            "down-after-milliseconds": self._down_after_ms,
            # An election that nobody won is held again after twice as long.
            "failover-timeout": max(3000, 3 * self._down_after_ms),
        }
        orders: list[Command] = []
        if node.link:
            orders.append(("SENTINEL", "CONFIG", "SET", "announce-port", node.announced))
        quorum = sentinels // 2 + 1
        watch = ("SENTINEL", "MONITOR", self._service, "127.0.0.1", primary.announced, quorum)
        changes = [("SENTINEL", "SET", self._service, *setting) for setting in settings.items()]
        return [*orders, watch, *changes]

    def _sees_all(self, node: Node) -> bool:
        """Say whether a Sentinel knows all others, and nobody as away."""
        asked = [("SENTINEL", what, self._service) for what in ("MASTER", "REPLICAS", "SENTINELS")]
        primary, replicas, sentinels = node.ask(*asked)
        known = [
            dict(zip(one[::2], one[1::2], strict=True)) for one in (primary, *replicas, *sentinels)
        ]
        others = len(self.nodes) - 1
        return len(known) == others and {one["flags"] for one in known} <= UNTROUBLED


def _follows(replica: Node) -> bool:
    [[_, _, _, state, *_]] = replica.ask(("ROLE",))
    return bool(state == "connected")


def _publishing_every(milliseconds: int) -> Command:
    """Tell a Sentinel how often to make itself known: 2,000 is usual, but slow to begin with."""
    return "SENTINEL", "DEBUG", "PUBLISH-PERIOD", milliseconds
