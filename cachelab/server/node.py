"""A set of servers that work together, and one of its nodes: what both kinds of set share."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import repeat
from secrets import token_urlsafe
from typing import Any, Protocol, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachelab._secret import Secret
from cachelab.errors import ServerError
from cachelab.server.config import DEFAULTS, SET_BY_SETS, directive
from cachelab.server.process import GuardedProcess
from cachelab.server.server import PORTS_TRIED, Server, _free_port

FORMED_WITHIN = 30.0  # seconds; it takes some 2.5, and a busy machine gets its time
ANSWER_WITHIN = 0.5  # seconds; a node that takes longer is away
LOOK_EVERY = 0.02  # seconds between two looks at a set that forms
BUS = 10_000  # a cluster's nodes talk to each other at their port plus this
HIGHEST_PORT = 65_535

CONFIGURATION = "node.conf"
# A replica gets its copy without waiting for others, and Redis 7.0 tells of one after a PING to it.
AT_ONCE: dict[str, str | int | bool] = {
    "repl_diskless_sync_delay": 0,
    "repl_ping_replica_period": 1,
}

Command = tuple[str | int, ...]


class Link(Protocol):
    """What stands in front of a node, as `cachelab.lab.measure.link.Link` does."""

    port: int

    def start(self) -> object: ...

    def stop(self) -> None: ...


class Node(Server):
    """One process of a practice set: it obeys as a `Server` does, alone.

    Its configuration is a file of its own, which it rewrites as its role changes: `restart` brings
    back what it was.

    Attributes:
        link: What stands in front of it, if the set was given links: what others connect to.
    """

    link: Any = None
    _is_new = True

    def __init__(
        self,
        config: list[str],
        *,
        passwords: tuple[str, ...],
        has_bus: bool = False,
        is_sentinel: bool = False,
        binary: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(binary=binary)
        self._config = config
        self._passwords = passwords
        self._has_bus = has_bus
        self._arguments = (CONFIGURATION, *(["--sentinel"] if is_sentinel else []))

    def start(self) -> Self:
        """Do nothing if it has started, as it has with its set.

        Raises:
            ServerError: It has not, and would know nobody.
        """
        if self._process is None:
            raise ServerError("A node starts with its set: call the set's start().")
        return self

    def stop(self) -> None:
        """Refuse, for the set could not take it back.

        Raises:
            ServerError: Always.
        """
        how = "kill() ends it alone, restart() brings it back, the set's stop() ends all"
        raise ServerError(f"A node ends with its set: {how}.")

    @property
    def role(self) -> str:
        """What it is now by its own account: "primary", "replica" or "sentinel".

        "away" where it does not answer: it was killed, or is frozen.
        """
        if not (self._process and self._pid):
            return "away"
        try:
            [[role, *_]] = self.ask(("ROLE",))
        except redis.RedisError:
            return "away"
        return {"master": "primary", "slave": "replica"}.get(role, str(role))

    @property
    def announced(self) -> int:
        """The port that it tells others to connect to: its link's if it has one."""
        return int(self.link.port) if self.link else self.port

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands to this very node and return its replies."""
        with redis.Redis(
            port=self.port,
            password=self._password,
            decode_responses=True,
            protocol=2,
            socket_timeout=ANSWER_WITHIN,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
        ) as client:
            pipeline = client.pipeline(transaction=False)
            for words in commands:
                pipeline.execute_command(*words)
            replies: list[Any] = pipeline.execute()
            return replies

    def __repr__(self) -> str:
        return super().__repr__().replace("<Server", "<Node")

    def _try(self, password: Secret) -> bool:
        self._is_new = True
        return super()._try(password)

    def _free_port(self) -> int:
        return _free_port_with_bus() if self._has_bus else super()._free_port()

    def _lines(self) -> list[str]:
        secrets = [Secret(f"{name} {self._password}") for name in self._passwords]
        return [*super()._lines(), *secrets]

    def _launch(self, process: GuardedProcess) -> int:
        if self._is_new:
            process.write(CONFIGURATION, self._lines())
            self._is_new = False
        return process.start([])


class PracticeSet:
    """Nodes that are started together, know one password and end together.

    Attributes:
        nodes: The nodes, each with kill, freeze, thaw, restart, role, port and url of its own.
    """

    nodes: Sequence[Node] = ()
    _password = Secret()
    _is_formed = False
    _owner = 0  # the process that started it

    def __init__(self, nodes: Sequence[Node], links: Callable[[str], Link] | None) -> None:
        if not (links is None or callable(links)):
            what = "a function of a URL, such as Link of cachelab.lab.measure.link"
            raise TypeError(f"links must be {what}, or None, not {links!r}")
        self.nodes = nodes
        self._links = links

    @property
    def url(self) -> str:
        """The URL that clients take, password included."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start all nodes at once, wait until they work together, and return the set."""
        if self._is_formed:
            return self
        self._owner = os.getpid()
        try:
            self._start_all()
            if self._links:
                for node in self.nodes:
                    node.link = self._links(node.url)
                    node.link.start()
            self._form()
        except BaseException:
            self.stop()
            raise
        self._is_formed = True
        return self

    def stop(self) -> None:
        """End all nodes and links, remove the nodes' directories; in a forked child do nothing."""
        if self._owner != os.getpid():
            return
        self._is_formed = False
        with ExitStack() as ending:  # whatever one of them raises, the others end too
            for node in self.nodes:
                ending.callback(Server.stop, node)
                if node.link:
                    ending.callback(node.link.stop)
                    node.link = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        if not self._is_formed:
            return f"<{type(self).__name__}, not started>"
        nodes = ", ".join(f"{node.port} {node.role}" for node in self.nodes)
        return f"<{type(self).__name__}, {nodes}>"

    def _start_all(self) -> None:
        for _ in range(PORTS_TRIED):
            # All anew where a port was taken: who took it may have been sent the password.
            password = Secret(token_urlsafe(24))
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                if all(list(pool.map(Node._try, self.nodes, repeat(password)))):
                    self._password = password
                    return
        taken = f"Other programs took ports of the nodes {PORTS_TRIED} times in a row"
        raise ServerError(f"{taken}: try again.")

    def _form(self) -> None:
        """Make a whole of nodes that do not know each other yet."""
        raise NotImplementedError

    def _addresses(self, nodes: Sequence[Node]) -> str:
        if not self._is_formed:
            kind = type(self).__name__
            how = "call start(), or use it in a with statement"
            raise ServerError(f"The {kind} is not started: {how}.")
        return ",".join(f"127.0.0.1:{node.announced}" for node in nodes)


def directives(config: dict[str, str | int | bool], **ours: str | int | bool) -> list[str]:
    """Return the lines of configuration that all nodes share."""
    for name in config:
        if name in SET_BY_SETS:
            raise ValueError(f"{name} is not configurable: the set needs its own")
    asked = DEFAULTS | AT_ONCE | ours | config
    return [directive(name, value) for name, value in asked.items()]


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until a set has reached a state; an error of Redis's says that it has not yet."""
    deadline = time.monotonic() + FORMED_WITHIN
    said = ""
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except redis.RedisError as error:
            said = f" ({error})"
        time.sleep(LOOK_EVERY)
    raise ServerError(f"{what} within {FORMED_WITHIN:g} s{said}: is the machine overloaded?")


def _free_port_with_bus() -> int:
    """Return a free port that has a bus port; about a quarter of them have none."""
    while True:
        port = _free_port()
        if port + BUS <= HIGHEST_PORT and _is_free(port + BUS):
            return port


def _is_free(port: int) -> bool:
    import socket

    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
