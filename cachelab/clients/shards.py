"""Commands of many keys, straight to the nodes of a cluster that hold them: one trip to each.

redis-py's cluster clients know which node holds which slot. Their own way there costs two to three
times a GET, sleeps while a cluster is down, and sends anew, key by key, what a node has not
answered. This one sends to all nodes before it reads the first reply, and sends again what was
redirected, or what another node holds by then. Replicas are never asked: they may be late.
"""

# mypy: allow-untyped-calls
# redis-py's cluster clients are typed in part.

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from math import inf
from time import monotonic
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisClusterException,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)

from cachelab.clients import deadlines, deadlines_async
from cachelab.clients.failures import Away, passed, verdict

T = TypeVar("T")

Command = tuple[Any, tuple[Any, ...]]  # its key, or its slot, or the node it is for; and its words
Pack = Callable[[list[tuple[Any, ...]]], Any]
Routes = dict[Any, dict[int, bool]]  # to each node which commands, and whether to be ASKED

LONG = 0.1  # seconds: nodes that have not said anything by then are away
UNSERVED = (ConnectionError, redis.TimeoutError, ClusterDownError)  # it may help to ask elsewhere
HOPS = 8  # of one command: where it is sent on to, or tries while its slot is moving
PAUSE = 0.02  # seconds before another of these tries
TRIES = 4  # of a cache's: where it belongs, where it was moved, where it is asked for, once more
_USUAL = {bytes, int, list, type(None)}  # what replies are, if not errors


def is_cluster(client: object) -> bool:
    """Say whether a client is one of a cluster."""
    return isinstance(client, (redis.RedisCluster, redis.asyncio.RedisCluster))


def primary(client: Any, place: Any) -> Any:
    """Return the node that holds a key or slot, None while that is not known; nothing is locked.

    A node stands for itself.
    """
    if not isinstance(place, (str, int)):
        return place
    slot = client.keyslot(place) if isinstance(place, str) else place
    nodes = client.nodes_manager.slots_cache.get(slot)
    return nodes[0] if nodes else None


def exchange(
    client: redis.RedisCluster, commands: Sequence[Command], pack: Pack | None = None
) -> list[Any]:
    """Send commands of one key each straight to the nodes that hold the keys.

    Args:
        client: The cluster's.
        commands: The key and the words of each; to one node they go in this order.
        pack: What makes bytes of the words of several commands; None takes the connection's.

    What got no answer is sent again only where the client's own calls would be (``retries``).

    Returns:
        For each command its reply, undecoded, or the exception that came instead: one object for
        all that went to the same node and got no answer.
    """
    return blocked(exchanged(Blocking(client, pack), commands))


async def exchange_async(
    client: redis.asyncio.RedisCluster, commands: Sequence[Command], pack: Pack | None = None
) -> list[Any]:
    """Send commands as `exchange` does, from an asyncio client."""
    return await exchanged(Awaiting(client, pack), commands)


def send(client: Any, commands: Iterable[Command]) -> Any:
    """Send commands of one key each: one trip to a server, or to each node that holds some.

    Args:
        client: A redis.Redis or RedisCluster; of an asyncio one the result is to be awaited.
        commands: The key and the words of each; with one key they go over one connection.

    Returns:
        For each command its reply, undecoded, or the exception that came instead.
    """
    if isinstance(client, redis.RedisCluster):
        return exchange(client, list(commands))
    if isinstance(client, redis.asyncio.RedisCluster):
        return exchange_async(client, list(commands))
    pipeline = client.pipeline(transaction=False)
    for _, words in commands:
        pipeline.execute_command(*words, NEVER_DECODE=True)
    return pipeline.execute(raise_on_error=False)


def get(client: redis.RedisCluster, key: str, command: tuple[str, ...] = ("GET",)) -> Any:
    """Return what GET replies, undecoded, or raise: as `exchange` does, for the cost of a GET.

    command: Another that ends with the key.
    """
    node = primary(client, key)
    words = (*command, key)
    if node is None:
        return _given(exchange(client, [(key, words)]))
    try:
        return client.get_redis_connection(node).execute_command(*words, NEVER_DECODE=True)
    except _MENDED as error:
        began = {node: {0: False}}, [_passed(error)]
    return _given(blocked(exchanged(Blocking(client), [(key, words)], *began)))


async def get_async(
    client: redis.asyncio.RedisCluster, key: str, command: tuple[str, ...] = ("GET",)
) -> Any:
    """Return what GET replies, as `get` does."""
    node = primary(client, key)
    words = (*command, key)
    if node is None:
        return _given(await exchange_async(client, [(key, words)]))
    try:
        return await node.execute_command(*words, NEVER_DECODE=True)
    except _MENDED as error:
        began = {node: {0: False}}, [_passed(error)]
    return _given(await exchanged(Awaiting(client), [(key, words)], *began))


_MENDED = (AskError, ClusterDownError, TryAgainError, ConnectionError, redis.TimeoutError)


async def exchanged(
    way: "Blocking | Awaiting",
    commands: Sequence[Command],
    routes: Routes | None = None,
    replies: list[Any] | None = None,
) -> list[Any]:
    """Send commands, and again those that it may help.

    Args:
        way: How a client goes to its nodes.
        commands: What is sent.
        routes: Where the commands have gone already, if the first time is over.
        replies: What came of that.

    Returns:
        What `exchange` does.
    """
    replies = [None] * len(commands) if replies is None else replies
    left: Mapping[int, Any] = dict.fromkeys(range(len(commands)))
    for attempt in range(way.tries):
        if routes is None:
            routes = await _routes(way, commands, left, replies)
            await way.travel(commands, routes, replies)
        if set(map(type, replies)) <= _USUAL:
            break
        left = await _again(way, commands, routes, replies, attempt)
        if not left or way.is_late():
            break
        routes = None
    return replies


async def _routes(
    way: "Blocking | Awaiting",
    commands: Sequence[Command],
    left: Mapping[int, Any],
    replies: list[Any],
) -> Routes:
    """Return where the commands that are left go: to who is to be asked, else to who holds them."""
    routes: Routes = {}
    silence = None
    if not way.client.nodes_manager.slots_cache:
        silence = await way.refresh()
    for at, asked in left.items():
        place, words = commands[at]
        node = asked or way.node(place, words)
        if node is None:
            unknown = f"no node is known to hold {'slot ' * isinstance(place, int)}{place!r}"
            replies[at] = silence or SlotNotCoveredError(unknown)
        else:
            routes.setdefault(node, {})[at] = asked is not None
    # In one order always, or calls that hold one node's last connection would wait in a circle.
    return dict(sorted(routes.items(), key=lambda route: str(route[0].name)))


async def _again(
    way: "Blocking | Awaiting",
    commands: Sequence[Command],
    routes: Routes,
    replies: list[Any],
    attempt: int,
) -> dict[int, Any]:
    """Return which commands to send again, and whom to ask for them; learn what has changed."""
    errors = {
        at: (replies[at], node)
        for node, positions in routes.items()
        for at in positions
        if isinstance(replies[at], Exception)
    }
    moved = {error.slot_id: error for error, _ in errors.values() if isinstance(error, MovedError)}
    asked = {at: error for at, (error, _) in errors.items() if type(error) is AskError}
    lost = {at: node for at, (error, node) in errors.items() if is_failure(error)}
    if moved:
        await way.moved(moved.values())
    known = way.client.nodes_manager.get_node
    if lost or not all(known(error.host, error.port) for error in asked.values()):
        silence = await way.refresh(next(iter(lost.values())).name if lost else None)
        for at in lost:
            replies[at].__cause__ = silence
    left: dict[int, Any] = {}
    may_repeat = way.client.retry.get_retries() > 0  # what may have been done already
    for at, (error, node) in errors.items():
        is_repeated = attempt < way.repeats and isinstance(error, way.repeated)
        if at in asked:
            left[at] = known(error.host, error.port)
        elif isinstance(error, (MovedError, TryAgainError)):
            left[at] = None
        elif at in lost and may_repeat:
            if is_repeated or primary(way.client, commands[at][0]) not in (node, None):
                left[at] = None
    if any(isinstance(errors[at][0], TryAgainError) for at in left):
        await way.pause()
    return left


class Way:
    """How a client goes to the nodes of its cluster.

    Attributes:
        tries: How often a command is sent at most.
        repeats: How often a command may be sent again to a node that has not answered.
        repeated: After which errors it is.
    """

    repeats = 1
    repeated: tuple[type[Exception], ...] = (ConnectionError,)

    def __init__(self, client: Any, pack: Pack | None = None):
        self.client = client
        self.tries = TRIES
        self._pack = pack

    def node(self, place: Any, words: tuple[Any, ...]) -> Any:
        """Return where a command goes, None if that is not known."""
        return primary(self.client, place)

    async def pause(self) -> None:
        """Give a slot that is moving its time: here none."""


class Blocking(Way):
    """How a plain client goes: it writes to all nodes, then reads from one after the other."""

    def is_late(self) -> bool:
        return monotonic() > deadlines.DEADLINE.until

    def reads(self, node: Any, commands: Sequence[Command], positions: list[int]) -> list[Any]:
        """Return, for each command to a node, a function of a connection that reads its reply."""
        return [_undecoded] * len(positions)

    async def travel(self, commands: Sequence[Command], routes: Routes, replies: list[Any]) -> None:
        trips = []
        has_waited = False
        try:
            for node, positions in routes.items():
                pool = self.client.get_redis_connection(node).connection_pool
                words = _words(commands, positions)
                reads = _each(positions, self.reads(node, commands, [*positions]), _undecoded)
                trips.append(_Trip(pool, words, reads, self._pack))
                trips[-1].send()
            for trip, positions in zip(trips, routes.values(), strict=True):
                came = trip.receive(has_waited)
                has_waited = has_waited or isinstance(came, redis.TimeoutError)
                _note(replies, positions, came)
        finally:
            for trip in trips:
                trip.end()

    async def moved(self, errors: Collection[MovedError]) -> None:
        if is_much(self.client, len(errors)):
            await self.refresh()
        for error in errors:
            with suppress(LookupError):  # redis-py's, of a slot that nobody holds any more
                self.client.nodes_manager.move_slot(error)

    async def refresh(self, failed: str | None = None) -> Exception | None:
        """Learn anew who holds what, from others than the node that has failed, if they say it.

        Returns what came of it if nobody answered, None also where there was no time for it.
        """
        manager = self.client.nodes_manager
        began = monotonic()
        left = deadlines.DEADLINE.until - began
        # One thread asks, and the others wait for it: not for longer than they have time.
        if left < 0 or not manager._initialization_lock.acquire(timeout=left if left < inf else -1):
            return _silence(ConnectionError("another thread is still asking"), began)
        try:
            manager.initialize(last_failed_node_name=failed)
        except Exception as error:
            return _silence(error, began)
        finally:
            manager._initialization_lock.release()
        return None


class _Trip:
    """Commands to one node of a plain client, and what came back: replies or an exception."""

    def __init__(
        self,
        pool: Any,
        words: list[tuple[Any, ...]],
        reads: list[Callable[[Any], Any]],
        pack: Pack | None,
    ):
        self._pool = pool
        self._words = words
        self._reads = reads
        self._pack = pack
        self._connection: Any = None
        self._error: Exception | None = None
        self._is_whole = False  # every reply has been read

    def send(self) -> None:
        try:
            self._connection = self._pool.get_connection()
            pack = self._pack or self._connection.pack_commands
            self._connection.send_packed_command(pack(self._words))
        except Exception as error:
            self._error = _passed(error)

    def receive(self, has_waited: bool) -> "list[Any] | Exception":
        """Read the replies: at once if another node's were waited for in vain meanwhile."""
        if self._error is None:
            try:
                if has_waited and (hurry := getattr(self._connection._sock, "hurry", None)):
                    hurry()
                replies = [self._reply(read) for read in self._reads]
                self._is_whole = True
                return replies
            except Exception as error:
                self._error = _passed(error)
        return self._error

    def end(self) -> None:
        """Give the connection back, without replies that are still to come for nobody."""
        if self._connection is not None:
            if not self._is_whole:
                self._connection.disconnect()
            self._pool.release(self._connection)

    def _reply(self, read: Callable[[Any], Any]) -> Any:
        try:
            return read(self._connection)
        except ResponseError as error:
            return error


class Awaiting(Way):
    """How an asyncio client goes there: to all nodes side by side."""

    def is_late(self) -> bool:
        return monotonic() > deadlines_async.DEADLINE.get()

    def reads(self, node: Any, commands: Sequence[Command], positions: list[int]) -> list[Any]:
        """Return what `Blocking.reads` does; each is to be awaited."""
        return [_undecoded] * len(positions)

    async def travel(self, commands: Sequence[Command], routes: Routes, replies: list[Any]) -> None:
        came = await asyncio.gather(
            *(
                self._trip(
                    node,
                    _words(commands, positions),
                    _each(positions, self.reads(node, commands, [*positions]), _undecoded),
                )
                for node, positions in routes.items()
            )
        )
        for positions, reply in zip(routes.values(), came, strict=True):
            _note(replies, positions, reply)

    async def moved(self, errors: Collection[MovedError]) -> None:
        if is_much(self.client, len(errors)):
            await self.refresh()
        for error in errors:
            with suppress(LookupError):
                await self.client.nodes_manager.move_slot(error)

    async def refresh(self, failed: str | None = None) -> Exception | None:
        began = monotonic()
        if self.is_late():
            return None
        try:
            async with self._limit():
                is_first = not self.client.nodes_manager.slots_cache
                await self.client.initialize()  # does nothing but the first time
                if not is_first:
                    await self.client.nodes_manager.initialize(last_failed_node_name=failed)
        except Exception as error:
            return _silence(error, began)
        return None

    async def _trip(
        self, node: Any, words: list[tuple[Any, ...]], reads: list[Callable[[Any], Any]]
    ) -> "list[Any] | Exception":
        try:
            async with self._limit():
                return await self._replies(node, words, reads)
        except Exception as error:
            return _passed(error)

    async def _replies(
        self, node: Any, words: list[tuple[Any, ...]], reads: list[Callable[[Any], Any]]
    ) -> list[Any]:
        pool, is_whole = getattr(node, "pool", None), False  # ours waits for a free connection
        connection = await pool.get_connection() if pool else node.acquire_connection()
        try:
            await node.disconnect_if_needed(connection)
            pack = self._pack or connection.pack_commands
            await connection.send_packed_command(pack(words))
            replies: list[Any] = []
            for read in reads:
                try:
                    replies.append(await read(connection))
                except ResponseError as error:
                    replies.append(error)
            is_whole = True
            return replies
        finally:
            if pool:
                if not is_whole:  # replies that are still to come are nobody's
                    await connection.disconnect(nowait=True)
                await pool.release(connection)
            else:
                node.release(connection)

    def _limit(self) -> AbstractAsyncContextManager[Any]:
        """Return the time limit of what is awaited, which connections of ours heed themselves."""
        left = deadlines_async.DEADLINE.get() - monotonic()
        is_timed = getattr(self.client, "is_timed", False)
        return nullcontext() if left == inf or is_timed else asyncio.timeout(left)


def _undecoded(connection: Any) -> Any:
    """Read a reply, or return what is to be awaited for it."""
    return connection.read_response(disable_decoding=True)


def _words(commands: Sequence[Command], positions: dict[int, bool]) -> list[tuple[Any, ...]]:
    """Return what goes to one node."""
    return _each(positions, [commands[at][1] for at in positions], ("ASKING",))


def _each(positions: dict[int, bool], items: list[T], asking: T) -> list[T]:
    """Return an item for each command, with another before it where it has to say that it asks."""
    if True not in positions.values():
        return items
    pairs = zip(positions.values(), items, strict=True)
    return [one for asks, item in pairs for one in ([asking, item] if asks else [item])]


def _note(replies: list[Any], positions: dict[int, bool], came: "list[Any] | Exception") -> None:
    """Put what came of a trip where it belongs."""
    if isinstance(came, Exception):
        came = _each(positions, [came] * len(positions), came)
    rest = iter(came)
    for at, asks in positions.items():
        if asks:
            next(rest)
        replies[at] = next(rest)


def is_much(client: Any, moved: int) -> bool:
    """Say whether so much has moved that the client had better ask for all, as redis-py counts."""
    client.reinitialize_counter += moved
    if not 0 < client.reinitialize_steps <= client.reinitialize_counter:
        return False
    client.reinitialize_counter = 0
    return True


def is_failure(reply: object) -> bool:
    """Say whether instead of a reply there was none, or a node that cannot serve."""
    if isinstance(reply, ResponseError):
        return isinstance(reply, ClusterDownError)
    return isinstance(reply, Exception)


def is_everywhere(error: Exception) -> bool:
    """Say whether no other node of the cluster answered either, where one gave no answer."""
    kinds = (RedisClusterException, Away)
    return isinstance(error, kinds) or isinstance(error.__cause__, kinds)


def _silence(error: Exception, began: float) -> Exception | None:
    """Return what kept all nodes from telling who holds what, None if it was the lack of time.

    Who has waited for long while others asked has not heard anything either.
    """
    seen = _passed(error)
    is_redis_pys = isinstance(seen, RedisClusterException) and seen.__cause__ is not None
    if is_redis_pys or isinstance(seen, Away):
        return seen
    return Away({"the other nodes": seen}) if monotonic() - began > LONG else None


def _passed(error: Exception) -> Exception:
    """Return what Redis or the network did, as callers are to see it; raise what is another's."""
    seen = verdict(passed(error))
    assert isinstance(seen, Exception)
    return seen


def _given(replies: list[Any]) -> Any:
    """Return the only reply, or raise it."""
    (reply,) = replies
    if isinstance(reply, Exception):
        raise reply
    return reply


def blocked(coroutine: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """Return what a coroutine returns all of whose steps block."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        replies: list[Any] = end.value
        return replies
    raise RuntimeError("a step of the synchronous exchange has suspended")
