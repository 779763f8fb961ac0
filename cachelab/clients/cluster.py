"""The client of a cluster: made without a call, it asks the nodes when first needed, and in time.

redis-py's asks as it is made, drops every connection to a node when one fails, sleeps while the
cluster is down, and knows no limit but that of each read. The asyncio twin of this module is
`cachelab.clients.cluster_async`.
"""

# mypy: allow-untyped-calls
# redis-py's cluster clients are typed in part.

import random
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from math import inf
from threading import get_ident
from time import monotonic
from typing import Any, TypeVar

import redis
from redis._parsers import CommandsParser
from redis.backoff import NoBackoff
from redis.cluster import (
    PRIMARY,
    REPLICA,
    ClusterNode,
    LoadBalancingStrategy,
    NodesManager,
    get_node_name,
)
from redis.exceptions import (
    AskError,
    ClusterError,
    ConnectionError,
    MovedError,
    RedisError,
    TryAgainError,
)
from redis.utils import str_if_bytes

from cachelab import _locks
from cachelab.clients.deadlines import DEADLINE, QUIET, Pool, Retry
from cachelab.clients.failures import Away, passed, turns
from cachelab.clients.pipelines import Pipeline
from cachelab.clients.shards import HOPS, PAUSE, UNSERVED, is_much

SLOTS = 16_384
NAP = 0.002  # seconds between two looks whether another thread has heard
ASKED = 6  # nodes, at most, that are asked one after the other who holds what

Node = TypeVar("Node", bound=Any)


class Cluster(redis.RedisCluster):
    """A redis.RedisCluster that is made without I/O and whose calls end in time.

    Args:
        places: Host and port of the nodes to ask first.
        settings: What the connections to a node are made of.
        retry: How often a call is sent again.
        replica: Whether reads go to replicas.
    """

    nodes_manager: "Layout"
    _is_made = False

    def __init__(
        self,
        places: Sequence[tuple[str, int]],
        settings: dict[str, Any],
        retry: Retry,
        replica: bool = False,
    ):
        super().__init__(
            startup_nodes=[ClusterNode("127.0.0.1", 1, redis_connection=_Unasked())],
            **for_all(settings, retry, replica),
        )
        if replica:
            settings = settings | {"redis_connect_func": _read_only}
        self.nodes_manager = Layout(places, settings)
        self.commands_parser = _Commands(self.nodes_manager)
        self._lock = _locks.lock()
        self._allowed = (1 + retry.get_retries()) * settings["socket_timeout"]
        self._is_made = True
        weakref.finalize(self, self.nodes_manager.close).atexit = False

    def __del__(self) -> None:
        """Leave it to the finalizer."""

    def execute_command(self, *words: Any, **options: Any) -> Any:
        if not self._is_made:
            return {}  # to the COMMAND that redis-py sends as it makes a client
        return self.in_time(self._execute, words, options)

    def check(self) -> None:
        """Ask the nodes who holds what, or raise.

        Raises:
            RedisError: None of those that could be asked has answered.
        """
        self.in_time(self.nodes_manager.initialize)

    def in_time(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function with the time limit of a call, unless the thread has one."""
        limit = DEADLINE.until
        if limit < inf:
            return function(*args)
        try:
            DEADLINE.until = monotonic() + self._allowed
            return function(*args)
        finally:
            DEADLINE.until = limit

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Pipeline:
        self.in_time(self.nodes_manager.ask_first)
        return Pipeline(self, transaction)

    def _execute(self, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
        self.nodes_manager.ask_first()
        return super().execute_command(*words, **options)

    def _execute_command(self, target_node: Any, *words: Any, **options: Any) -> Any:
        return _routed(self, target_node, words, options)


class Layout(NodesManager):
    """Which node holds which slots, as far as it is known; asked for by one thread at a time."""

    connection_kwargs: dict[str, Any]
    _is_made = False

    def __init__(self, places: Sequence[tuple[str, int]], settings: dict[str, Any]):
        node_settings = settings | {"retry": Retry(NoBackoff(), 0)}
        seeds = [ClusterNode(host, port) for host, port in places]
        super().__init__(seeds, lock=_locks.lock(), **node_settings)
        self._turn = Turn(2 * settings["socket_timeout"])
        self.patience: float = settings["socket_timeout"]
        self._is_made = True

    def ask_first(self) -> None:
        """Ask who holds what, unless that is known."""
        if not self.slots_cache:
            self._turn.run(lambda: bool(self.slots_cache), self._ask)

    def initialize(
        self,
        additional_startup_nodes_info: Any = None,
        disconnect_startup_nodes_pools: bool = True,
        last_failed_node_name: str | None = None,
    ) -> None:
        """Ask who holds what; who comes while another asks takes what that one hears.

        Raises:
            Away: None of those that could be asked has answered.
            ConnectionError: Somebody is still asking.
        """
        if not self._is_made:
            return
        epoch = self._epoch
        self._turn.run(lambda: self._epoch != epoch, self._ask, last_failed_node_name)

    def move_slot(self, e: Any) -> None:
        self.slots_cache.setdefault(e.slot_id, [])
        super().move_slot(e)

    def create_redis_node(self, host: str, port: int, **_: Any) -> redis.Redis:
        return redis.Redis(connection_pool=Pool(host=host, port=port, **self.connection_kwargs))

    def close(self) -> None:
        """Close the connections that no call uses; the next call opens new ones."""
        for node in [*self.nodes_cache.values(), *self.startup_nodes.values()]:
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect(inuse_connections=False)

    def ask(
        self, command: str, take: Callable[[Any, Any], None], failed: str | None = None
    ) -> None:
        """Send a command to one node after the other until one has an answer that can be taken.

        Args:
            command: What any node can answer.
            take: A function of the reply and the node, which may raise a ConnectionError.
            failed: The name of a node that is asked last.

        Raises:
            Away: None of those that could be asked has answered.
        """
        tried: dict[str, Exception] = {}
        limit = DEADLINE.until
        for node, until in turns(candidates(self, failed), limit, self.patience):
            try:
                DEADLINE.until = until
                self.create_redis_connections([node])
                take(node.redis_connection.execute_command(command), node)
                return
            except (RedisError, OSError) as error:
                tried[node.name] = passed(error)
            finally:
                DEADLINE.until = limit
        raise Away(tried)

    def _ask(self, failed: str | None = None) -> None:
        self.ask("CLUSTER SLOTS", self._learn, failed)

    def _learn(self, shards: Any, node: Any) -> None:
        nodes, slots = layout(shards, node.host, self.nodes_cache, ClusterNode)
        self.create_redis_connections(list(nodes.values()))
        with self._lock:
            self.nodes_cache, self.slots_cache = nodes, slots
            self.default_node = next(iter(nodes.values()))
            self._epoch += 1


class _Unasked(redis.Redis):
    """Answers to redis-py as it makes a client: one node, of which nothing is kept."""

    def execute_command(self, *words: Any, **options: Any) -> Any:
        return [[0, SLOTS - 1, ["127.0.0.1", 1, ""]]]


class _Commands(CommandsParser):
    """Which arguments of a command are keys: asked of the server once, by one thread."""

    def __init__(self, manager: Layout):
        self.commands: dict[str, Any] = {}
        self._manager = manager
        self._turn = Turn(2 * manager.patience)

    def initialize(self, _: Any) -> None:
        self._turn.run(lambda: bool(self.commands), self._manager.ask, "COMMAND", self._take)

    def _take(self, commands: dict[str, Any], _: Any) -> None:
        self.commands = {name.lower(): command for name, command in commands.items()}


class Turn:
    """Lets one thread at a time do what all of them need; the others wait, within their deadlines.

    No lock, which an interrupt might leave locked: a turn ends by itself after some seconds.

    >>> turn, done = Turn(1.0), []
    >>> turn.run(lambda: bool(done), done.append, 1); turn.run(lambda: bool(done), done.append, 2)
    >>> done
    [1]
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._taken = 0, 0.0  # by which thread, and until when

    def run(self, is_done: Callable[[], bool], do: Callable[..., object], *args: Any) -> None:
        """Do it, or wait until another thread has.

        Raises:
            ConnectionError: Another thread is still at it.
        """
        me = get_ident()
        while not is_done():
            now = monotonic()
            thread, end = self._taken
            if thread == me or now >= end:  # a signal handler may come in where this thread is
                self._taken = me, now + self._seconds
                try:
                    do(*args)
                finally:
                    self._taken = 0, 0.0
                return
            if now >= DEADLINE.until:
                raise ConnectionError("another thread is still asking the cluster")
            time.sleep(NAP)


def _routed(client: Any, node: Any, words: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Send a command to a node, and on to where that one says, within the thread's deadline."""
    manager, is_asked = client.nodes_manager, False
    for _ in range(HOPS):
        try:
            reply = _sent(client.get_redis_connection(node), is_asked, words, options)
        except MovedError as error:
            if is_much(client, 1):
                _ask_again(manager)
            manager.move_slot(error)
            node, is_asked = manager.get_node_from_slot(error.slot_id), False
        except AskError as error:
            if manager.get_node(error.host, error.port) is None:
                _ask_again(manager)
            node, is_asked = manager.get_node(error.host, error.port) or node, True
        except TryAgainError:
            time.sleep(max(0.0, min(PAUSE, DEADLINE.until - monotonic())))
        except UNSERVED:
            _ask_again(manager, node.name)
            raise
        else:
            callback = client.cluster_response_callbacks.get(words[0])
            return callback(reply, **options) if callback else reply
        if monotonic() > DEADLINE.until:
            break
    raise ClusterError(f"{words[0]} was sent from node to node and arrived nowhere")


def _sent(
    client: redis.Redis, is_asked: bool, words: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    if not is_asked:
        return client.execute_command(*words, **options)
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("ASKING")
    pipeline.execute_command(*words, **options)
    _, reply = pipeline.execute(raise_on_error=False)
    if isinstance(reply, Exception):
        raise reply
    return reply


def _ask_again(manager: Layout, failed: str | None = None) -> None:
    """Ask who holds what, if anybody says it: else what is known stays."""
    try:
        manager.initialize(last_failed_node_name=failed)
    except (RedisError, OSError) as error:
        passed(error)


def _read_only(connection: Any) -> None:
    """Greet a node as one whose replica may be read."""
    connection.on_connect()
    connection.send_command("READONLY")
    connection.read_response()


def for_all(settings: Mapping[str, Any], retry: Any, replica: bool) -> dict[str, Any]:
    """Return what redis-py's clients of either kind are made of, beside their nodes."""
    spoken = ("decode_responses", "encoding", "encoding_errors", "legacy_responses", "protocol")
    balance = LoadBalancingStrategy.ROUND_ROBIN_REPLICAS if replica else None
    return {
        "retry": retry,
        "load_balancing_strategy": balance,
        "maint_notifications_config": QUIET,
        **{name: settings[name] for name in spoken if name in settings},
    }


def candidates(manager: Any, failed: str | None) -> list[Any]:
    """Return the nodes to ask who holds what, at random, for one may be behind; who failed last."""
    known = manager.startup_nodes | manager.nodes_cache
    last = [known.pop(failed)] if failed in known else []
    return [*random.sample(list(known.values()), min(len(known), ASKED)), *last]


def layout(
    shards: Any, host: str, known: Mapping[str, Node], make: Callable[[str, int, str], Node]
) -> tuple[dict[str, Node], dict[int, list[Node]]]:
    """Return what a reply to CLUSTER SLOTS says: the nodes by name, and those of each slot.

    Args:
        shards: The reply.
        host: Who was asked, which stands for an address that the reply leaves out.
        known: Nodes by name, which are taken over.
        make: A function of host, port and role that makes the others.

    Raises:
        ConnectionError: No slot is held by anybody.
    """
    nodes: dict[str, Node] = {}
    slots: dict[int, list[Node]] = {}
    for first, last, *places in shards:
        holders = []
        for at, (said, port, *_) in enumerate(places):
            role = REPLICA if at else PRIMARY
            place = str_if_bytes(said) or host
            name = get_node_name(place, port)
            if name not in nodes:
                nodes[name] = known.get(name) or make(place, port, role)
                nodes[name].server_type = role
            holders.append(nodes[name])
        slots |= dict.fromkeys(range(first, last + 1), holders)
    if not slots:
        raise ConnectionError("no node holds any slot of the cluster yet")
    return nodes, slots
