"""The asyncio client of a cluster: a layout and connections for each event loop.

The twin of `cachelab.clients.cluster`.
"""

# mypy: allow-untyped-calls
# redis-py's cluster clients are typed in part.

import asyncio
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any

import redis.asyncio
from redis._parsers import AsyncCommandsParser
from redis.asyncio.cluster import ClusterNode, NodesManager
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterError,
    MovedError,
    RedisError,
    TryAgainError,
)

from cachelab._loops import PerLoop
from cachelab.clients.cluster import candidates, for_all, layout
from cachelab.clients.deadlines_async import ASKING, DEADLINE, AsyncRetry, LoopPool, Once
from cachelab.clients.failures import Away, passed, turns
from cachelab.clients.pipelines import AsyncPipeline
from cachelab.clients.shards import HOPS, PAUSE, UNSERVED, is_much


class AsyncCluster(redis.asyncio.RedisCluster):
    """A redis.asyncio.RedisCluster for one event loop after another, whose calls end in time.

    Args:
        places: Host and port of the nodes to ask first.
        settings: What the connections to a node are made of.
        retry: How often a call is sent again.
        replica: Whether reads go to replicas.

    Attributes:
        allowed: Seconds that a call may take, with what is sent again.
    """

    is_timed = True  # its connections heed a task's deadline themselves

    def __init__(
        self,
        places: Sequence[tuple[str, int]],
        settings: dict[str, Any],
        retry: AsyncRetry,
        replica: bool = False,
    ):
        if replica:
            settings = settings | {"redis_connect_func": _read_only}
        self._states: PerLoop[_State] = PerLoop(lambda: _State(places, settings))
        self._outside = _State(places, settings)  # of event loops: nothing is known there
        host, port = places[0]
        super().__init__(host, port, **for_all(settings, retry, replica))
        self.connection_kwargs = settings
        self.allowed = (1 + retry.get_retries()) * settings["socket_timeout"]
        weakref.finalize(self, _close_idle, self._states).atexit = False

    def __del__(self, *_: Any) -> None:
        """Leave it to the finalizer."""

    @property  # type: ignore[override]
    def nodes_manager(self) -> "AsyncLayout":
        return self._here().layout

    @nodes_manager.setter
    def nodes_manager(self, made: Any) -> None:
        """Keep none of redis-py's, which belongs to one event loop."""

    @property  # type: ignore[override]
    def commands_parser(self) -> "_Commands":
        return self._here().commands

    @commands_parser.setter
    def commands_parser(self, made: Any) -> None:
        """Keep none of redis-py's, which belongs to one event loop."""

    @property
    def _initialize(self) -> bool:
        return not self.nodes_manager.slots_cache

    @_initialize.setter
    def _initialize(self, is_new: bool) -> None:
        """Leave it to the layout, which knows or does not."""

    async def initialize(self, *_: Any, **__: Any) -> "AsyncCluster":
        """Ask who holds what, unless that is known."""
        if self._initialize:
            await self.nodes_manager.initialize()
        return self

    async def aclose(self) -> None:
        """Close the connections of this event loop that no call uses, and forget who holds what.

        The next call opens new ones, and asks.
        """
        self.nodes_manager.slots_cache = {}
        await self.nodes_manager.aclose()

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        limit = None
        if DEADLINE.get() == inf:
            limit = DEADLINE.set(monotonic() + self.allowed)
        try:
            await self.initialize()
            return await super().execute_command(*words, **options)
        finally:
            if limit is not None:
                DEADLINE.reset(limit)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> AsyncPipeline:
        return AsyncPipeline(self, transaction)  # type: ignore[abstract]

    async def _execute_command(self, target_node: Any, *words: Any, **options: Any) -> Any:
        """Send a command to a node, and on to where that one says, within the task's deadline."""
        node, manager, is_asked = target_node, self.nodes_manager, False
        for _ in range(HOPS):
            try:
                return await _sent(node, is_asked, words, options)
            except MovedError as error:
                if is_much(self, 1):
                    await _ask_again(manager)
                await manager.move_slot(error)
                node, is_asked = manager.get_node_from_slot(error.slot_id), False
            except AskError as error:
                if manager.get_node(error.host, error.port) is None:
                    await _ask_again(manager)
                node, is_asked = manager.get_node(error.host, error.port) or node, True
            except TryAgainError:
                await asyncio.sleep(max(0.0, min(PAUSE, DEADLINE.get() - monotonic())))
            except UNSERVED:
                await _ask_again(manager, node.name)
                raise
            if monotonic() > DEADLINE.get():
                break
        raise ClusterError(f"{words[0]} was sent from node to node and arrived nowhere")

    def _here(self) -> "_State":
        try:
            return self._states.here()
        except RuntimeError:
            return self._outside


class _State:
    """What a client knows in one event loop."""

    def __init__(self, places: Sequence[tuple[str, int]], settings: dict[str, Any]):
        self.layout = AsyncLayout(places, settings)
        self.commands = _Commands(self.layout)


class AsyncNode(ClusterNode):
    """A node with a pool of ours: a call that finds no connection free waits for one."""

    __slots__ = ("client", "pool")

    def __init__(self, host: str, port: int, server_type: str | None = None, **settings: Any):
        of_pool = {"timeout"}
        own = {name: value for name, value in settings.items() if name not in of_pool}
        super().__init__(host, port, server_type, **own)
        retry = AsyncRetry(NoBackoff(), 0)
        self.pool = LoopPool(host=self.host, port=port, retry=retry, **settings)
        self.client = redis.asyncio.Redis(connection_pool=self.pool)

    async def execute_command(self, *words: Any, asking: bool = False, **options: Any) -> Any:
        return await self.client.execute_command(*words, **options)

    async def disconnect(self) -> None:
        await self.pool.disconnect(inuse_connections=False)

    def close_idle(self) -> None:
        self.pool.close_idle()


class AsyncLayout(NodesManager):
    """Which node holds which slots, as far as it is known; asked for by one task at a time."""

    def __init__(self, places: Sequence[tuple[str, int]], settings: dict[str, Any]):
        seeds: list[ClusterNode] = [AsyncNode(host, port, **settings) for host, port in places]
        super().__init__(seeds, False, settings)
        self.patience: float = settings["socket_timeout"]
        self._once = Once(self._ask, self.names, ASKING * self.patience)

    async def initialize(
        self, additional_startup_nodes_info: Any = None, last_failed_node_name: str | None = None
    ) -> None:
        """Ask who holds what; who comes while another asks takes what that one hears.

        Raises:
            Away: None of those that could be asked has answered.
            TimeoutError: Nor have they while there was time.
        """
        await self._once(last_failed_node_name)

    async def move_slot(self, e: Any) -> None:
        self.slots_cache.setdefault(e.slot_id, [])
        if self.get_node(e.host, e.port) is None:
            node = self._made(e.host, e.port, "primary")
            self.nodes_cache[node.name] = node
        await super().move_slot(e)

    async def aclose(self, attr: str = "nodes_cache") -> None:
        await asyncio.gather(*(node.disconnect() for node in self.all()))

    def all(self) -> set[Any]:
        """Return all nodes that it may have connections to."""
        return {*self.nodes_cache.values(), *self.startup_nodes.values()}

    async def ask(
        self, command: str, take: Callable[[Any, Any], None], end: float, failed: str | None = None
    ) -> None:
        """Send a command to one node after the other until an end, as `cluster.Layout.ask`."""
        tried: dict[str, Exception] = {}
        for node, until in turns(candidates(self, failed), end, self.patience):
            limit = DEADLINE.set(until)
            try:
                take(await node.execute_command(command), node)
                return
            except (RedisError, OSError) as error:
                tried[node.name] = passed(error)
            finally:
                DEADLINE.reset(limit)
        raise Away(tried)

    def names(self) -> list[str]:
        """Return the names of all nodes that it may ask."""
        return list(self.startup_nodes | self.nodes_cache)

    async def _ask(self, end: float, failed: str | None) -> None:
        await self.ask("CLUSTER SLOTS", self._learn, end, failed)

    def _learn(self, shards: Any, node: AsyncNode) -> None:
        known = self.startup_nodes | self.nodes_cache
        self.nodes_cache, self.slots_cache = layout(shards, node.host, known, self._made)
        self.default_node = next(iter(self.nodes_cache.values()))
        self._epoch += 1

    def _made(self, host: str, port: int, role: str) -> AsyncNode:
        return AsyncNode(host, port, role, **self.connection_kwargs)


class _Commands(AsyncCommandsParser):
    """Which arguments of a command are keys: asked of the server once, by one task."""

    def __init__(self, manager: AsyncLayout):
        super().__init__()
        self._once = Once(
            partial(manager.ask, "COMMAND", self._take), manager.names, ASKING * manager.patience
        )

    async def initialize(self, node: Any = None) -> None:
        if not self.commands:
            await self._once()

    def _take(self, commands: dict[str, Any], node: Any) -> None:
        self.node = node
        self.commands = {name.lower(): command for name, command in commands.items()}


async def _sent(
    node: AsyncNode, is_asked: bool, words: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    if not is_asked:
        return await node.execute_command(*words, **options)
    pipeline = node.client.pipeline(transaction=False)
    pipeline.execute_command("ASKING")
    pipeline.execute_command(*words, **options)
    _, reply = await pipeline.execute(raise_on_error=False)
    if isinstance(reply, Exception):
        raise reply
    return reply


async def _ask_again(manager: AsyncLayout, failed: str | None = None) -> None:
    """Ask who holds what, if anybody says it soon: else what is known stays."""
    limit = DEADLINE.set(min(DEADLINE.get(), monotonic() + manager.patience / 2))
    try:
        await manager.initialize(last_failed_node_name=failed)
    except (RedisError, OSError) as error:
        passed(error)
    finally:
        DEADLINE.reset(limit)


async def _read_only(connection: Any) -> None:
    """Greet a node as one whose replica may be read."""
    await connection.on_connect()
    await connection.send_command("READONLY")
    await connection.read_response()


def _close_idle(states: "PerLoop[_State]") -> None:
    """Close connections from anywhere, each in its own loop, without waiting for it."""
    for loop, state in states.all():
        for node in state.layout.all():
            with suppress(RuntimeError):  # closed, and its connections with it
                loop.call_soon_threadsafe(node.close_idle)
