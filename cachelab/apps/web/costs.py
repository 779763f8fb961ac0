"""What one response cost: commands and round trips to Redis, loads from the database, time.

The cost of a response is a context variable. A task that is begun for it, such as a load, has it
too; who joins another's load pays nothing, but has missed.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

import redis.asyncio

from cachelab.clients.cluster_async import AsyncCluster


@dataclass
class Cost:
    """What has been spent on a response so far.

    Attributes:
        commands: Sent to Redis.
        trips: Waits for Redis, each for one command or for several in a pipeline; those for several
            nodes of a cluster, side by side, are as many.
        redis: Seconds that these took, added up.
        loads: Questions to the database.
        database: Seconds that these took, added up.
        reads: Whether something was read that is cached.
        missed: Whether some of it was not.
        is_off: Whether the cache was left out.
    """

    commands: int = 0
    trips: int = 0
    redis: float = 0.0
    loads: int = 0
    database: float = 0.0
    reads: bool = False
    missed: bool = False
    is_off: bool = False
    began: float = field(default_factory=perf_counter)
    ended: float = 0.0

    @property
    def ms(self) -> float:
        """Milliseconds from the request to the response, or until now."""
        return 1000 * ((self.ended or perf_counter()) - self.began)

    @property
    def outcome(self) -> Literal["hit", "miss", "off", "none"]:
        """Whether all that is cached came from there; "none" where nothing was asked for."""
        if self.is_off:
            return "off"
        if not self.reads:
            return "none"
        return "miss" if self.missed or self.loads else "hit"

    @property
    def headers(self) -> dict[str, str]:
        """The same as `X-Cache` and as `Server-Timing`, which browsers show beside a request."""
        timing = [
            f"total;dur={self.ms:.2f}",
            f'redis;dur={1000 * self.redis:.2f};desc="{self.commands} commands, '
            f'{self.trips} round trips"',
            f'database;dur={1000 * self.database:.2f};desc="{self.loads} loads"',
        ]
        return {"X-Cache": self.outcome, "Server-Timing": ", ".join(timing)}


_cost: ContextVar[Cost | None] = ContextVar("cost", default=None)


def begin() -> Cost:
    """Begin to count for the request that is served in this task, and return its cost."""
    cost = Cost()
    _cost.set(cost)
    return cost


def here() -> Cost:
    """Return the cost of the request that is served here, of none a cost that nobody sees."""
    return _cost.get() or Cost()


@contextmanager
def load() -> Iterator[None]:
    """Count a question to the database."""
    cost, began = here(), perf_counter()
    cost.loads += 1
    try:
        yield
    finally:
        cost.database += perf_counter() - began


@contextmanager
def _spent(commands: int = 0, trips: int = 0) -> Iterator[None]:
    cost, began = here(), perf_counter()
    cost.commands += commands
    cost.trips += trips
    try:
        yield
    finally:
        cost.redis += perf_counter() - began


def counted(client: redis.asyncio.Redis) -> redis.asyncio.Redis:
    """Return a client of the same server whose commands count for whoever sends them.

    That of a cluster has connections of its own, for caches go past it, straight to the nodes. What
    is asked there about the cluster itself counts too, and what a node sends on to another.
    """
    if isinstance(client, AsyncCluster):
        return _counted_cluster(client)
    twin: Any = copy.copy(client)

    async def execute_command(*words: Any, **options: Any) -> Any:
        with _spent(1, 1):
            return await client.execute_command(*words, **options)  # type: ignore[no-untyped-call]

    def pipeline(*args: Any, **options: Any) -> Any:
        line: Any = client.pipeline(*args, **options)
        execute = line.execute

        async def counted_execute(*args: Any, **options: Any) -> Any:
            with _spent(len(line.command_stack), 1):
                return await execute(*args, **options)

        line.execute = counted_execute
        return line

    twin.execute_command = execute_command
    twin.pipeline = pipeline
    return twin  # type: ignore[no-any-return]


def _counted_cluster(client: Any) -> Any:
    nodes = client.nodes_manager.startup_nodes.values()
    kind = client.connection_kwargs["connection_class"]
    counting = type(f"Counted{kind.__name__}", (_Counted, kind), {})
    settings = client.connection_kwargs | {"connection_class": counting}
    return AsyncCluster([(node.host, node.port) for node in nodes], settings, client.retry)


class _Counted:
    """A connection that counts: what is sent at once is a trip, a reply is that of a command."""

    _is_new = False

    async def on_connect_check_health(self: Any, check_health: bool = True) -> None:
        self._is_new = True  # its greeting is no command of anybody's
        try:
            await super().on_connect_check_health(check_health)  # type: ignore[misc]
        finally:
            self._is_new = False

    async def send_packed_command(self: Any, command: Any, check_health: bool = True) -> None:
        with _spent(trips=not self._is_new):
            await super().send_packed_command(command, check_health)  # type: ignore[misc]

    async def read_response(self: Any, *args: Any, **options: Any) -> Any:
        with _spent(commands=not self._is_new):
            return await super().read_response(*args, **options)  # type: ignore[misc]
