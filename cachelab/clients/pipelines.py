"""Pipelines of a cluster, plain and asyncio: straight to the nodes, within the time of one call.

redis-py's plain one takes connections in the order of its commands, so that threads wait for each
other in a circle; and both send one by one, each with a time limit of its own, what was redirected
or got no answer.
"""

# mypy: allow-untyped-calls
# redis-py's cluster clients are typed in part.

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import Any

import redis.asyncio.cluster as redis_asyncio
import redis.cluster as redis_sync
from redis.cluster import SLOT_ID
from redis.commands import READ_COMMANDS
from redis.exceptions import RedisClusterException

from cachelab import _locks
from cachelab.clients import deadlines, deadlines_async
from cachelab.clients.shards import (
    HOPS,
    PAUSE,
    UNSERVED,
    Awaiting,
    Blocking,
    Command,
    Way,
    blocked,
    exchanged,
    primary,
)


class Pipeline(redis_sync.ClusterPipeline):
    """The pipeline of a plain client.

    Args:
        client: A `cachelab.clients.cluster.Cluster`.
        transaction: Whether all its commands, of one slot, are one transaction, as redis-py has it.
    """

    def __init__(self, client: Any, transaction: Any):
        super().__init__(
            nodes_manager=client.nodes_manager,
            commands_parser=client.commands_parser,
            startup_nodes=list(client.nodes_manager.startup_nodes.values()),
            result_callbacks=client.result_callbacks,
            cluster_response_callbacks=client.cluster_response_callbacks,
            load_balancing_strategy=client.load_balancing_strategy,
            reinitialize_steps=client.reinitialize_steps,
            retry=client.retry,
            lock=_locks.lock(),
            transaction=transaction,
        )
        self.client = client
        if not transaction:
            self._execution_strategy = _Straight(self)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        replies: list[Any] = self.client.in_time(super().execute, raise_on_error)
        return replies


class _Straight(redis_sync.PipelineStrategy):
    _pipe: Pipeline

    def send_cluster_commands(
        self, stack: list[Any], raise_on_error: bool = True, allow_redirections: bool = True
    ) -> list[Any]:
        began, client = monotonic(), self._pipe.client
        commands = [(self._place(one.args, one.options), one.args) for one in stack]
        way = _Piped(client, [one.options for one in stack])
        for one, reply in zip(stack, blocked(exchanged(way, commands)), strict=True):
            take = client.cluster_response_callbacks.get(one.args[0])
            is_final = take is None or isinstance(reply, Exception)
            one.result = reply if is_final else take(reply, **one.options)
        if raise_on_error:
            self._raise_first_error(stack, began)
        return [one.result for one in stack]

    def _place(self, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        place = _target(self._pipe.client, words, options.pop("target_nodes", None))
        return int(self._pipe.client.determine_slot(*words)) if place is None else place


class AsyncPipeline(redis_asyncio.ClusterPipeline):
    """The pipeline of an asyncio client.

    Args:
        client: A `cachelab.clients.cluster_async.AsyncCluster`.
        transaction: As of `Pipeline`.
    """

    def __init__(self, client: Any, transaction: Any):
        super().__init__(client, transaction)
        self._allowed = client.allowed
        if not transaction:
            self._execution_strategy = _AsyncStraight(self)

    async def execute(
        self, raise_on_error: bool = True, allow_redirections: bool = True
    ) -> list[Any]:
        until = deadlines_async.DEADLINE.get()
        if until == inf:
            until = monotonic() + self._allowed
        limit = deadlines_async.DEADLINE.set(until)
        try:
            return await super().execute(raise_on_error, allow_redirections)
        finally:
            deadlines_async.DEADLINE.reset(limit)


class _AsyncStraight(redis_asyncio.PipelineStrategy):
    async def execute(
        self, raise_on_error: bool = True, allow_redirections: bool = True
    ) -> list[Any]:
        stack, client = self._command_queue, self._pipe.cluster_client
        if not stack:
            return []
        await client.initialize()
        commands = [(await self._place(one.args, one.kwargs), one.args) for one in stack]
        replies = await exchanged(_AsyncPiped(client, [one.kwargs for one in stack]), commands)
        for one, reply in zip(stack, replies, strict=True):
            if raise_on_error and isinstance(reply, Exception):
                self._annotate_exception(reply, one.position + 1, one.args)
                raise reply
        return replies

    async def _place(self, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        client = self._pipe.cluster_client
        place = _target(client, words, options.pop("target_nodes", None))
        return int(await client._determine_slot(*words)) if place is None else place


class _AsAlone(Way):
    """How the commands of a pipeline of either kind go: sent again as often as each would alone."""

    repeated = UNSERVED

    def __init__(self, client: Any, options: Sequence[dict[str, Any]]):
        super().__init__(client)
        self.repeats = client.retry.get_retries()
        self.tries = HOPS + self.repeats
        self._options = options

    def node(self, place: Any, words: tuple[Any, ...]) -> Any:
        return _holder(self.client, place, words)


class _Piped(_AsAlone, Blocking):
    """How the commands of a pipeline go."""

    async def pause(self) -> None:
        left = deadlines.DEADLINE.until - monotonic()
        time.sleep(max(0.0, min(PAUSE, left)))  # noqa: ASYNC251 - nothing here suspends

    def reads(self, node: Any, commands: Sequence[Command], positions: list[int]) -> list[Any]:
        parse = self.client.get_redis_connection(node).parse_response
        return [
            partial(parse, command_name=commands[at][1][0], **self._options[at]) for at in positions
        ]


class _AsyncPiped(_AsAlone, Awaiting):
    """How the commands of an asyncio pipeline go."""

    async def pause(self) -> None:
        await asyncio.sleep(max(0.0, min(PAUSE, deadlines_async.DEADLINE.get() - monotonic())))

    def reads(self, node: Any, commands: Sequence[Command], positions: list[int]) -> list[Any]:
        parse = node.client.parse_response
        return [
            partial(parse, command_name=commands[at][1][0], **self._options[at]) for at in positions
        ]


def _target(client: Any, words: tuple[Any, ...], asked: Any) -> Any:
    """Return the node that a command is meant for, None if for whoever holds its keys."""
    name, both = str(words[0]).upper(), " ".join(map(str, words[:2])).upper()
    flags = client.command_flags
    flag = flags.get(both) or flags.get(name)
    if isinstance(asked, str) and asked in client.node_flags:
        flag = asked
    elif asked:
        nodes = list(client._parse_target_nodes(asked))
        return _only(nodes, name)
    if flag in (None, SLOT_ID):
        return None
    policy = client._policies_callback_mapping[client._command_flags_mapping[flag]]
    return _only(policy(name) if flag == client.RANDOM else policy(), name)


def _only(nodes: Sequence[Any], name: str) -> Any:
    if len(nodes) != 1:
        raise RedisClusterException(
            f"{name} would go to {len(nodes)} nodes, and in a pipeline each command goes to one"
        )
    return nodes[0]


def _holder(client: Any, place: Any, words: tuple[Any, ...]) -> Any:
    """Return where a command goes: a read to any node of its slot, if the client spreads reads."""
    balance = client.load_balancing_strategy if words[0] in READ_COMMANDS else None
    if balance and isinstance(place, int) and client.nodes_manager.slots_cache.get(place):
        return client.nodes_manager.get_node_from_slot(place, False, balance)
    return primary(client, place)
