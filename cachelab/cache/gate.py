"""The way to Redis: a budget of time for each call, a breaker for each server, failures counted."""

import asyncio
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain, islice
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ReadOnlyError, ResponseError

from cachelab import _locks
from cachelab._loops import PerLoop
from cachelab.cache.breaker import Breaker
from cachelab.cache.codec import Mark
from cachelab.cache.stats import Counts
from cachelab.clients import (
    deadlines,
    deadlines_async,
    drop_connections,
    drop_connections_async,
    foreign,
    is_ours,
    shards,
)

BUDGET = 0.45  # seconds that Redis may add to one call
SLOW = 0.1  # seconds: where a reply takes longer, nobody queues for another
AT_ONCE = 50  # calls under way, where the client's pool does not say how many it can carry
NAP = 0.5  # seconds after which who waits for room looks by itself, should a wake-up be lost
MUTEX = 0.05  # seconds that a stranger's pool gets to let go of its lock

Entries = Collection[str] | Mapping[str, Any]  # ids, some with what a command needs for each
Client = redis.Redis | redis.RedisCluster | redis.asyncio.Redis | redis.asyncio.RedisCluster


class Room:
    """Places for so many threads at once, like a semaphore's, that no interrupt can lose.

    Who enters brings an object of its own, so that to leave twice, or without having entered, does
    no harm: ``try: room.enter(place, 1.0) ... finally: room.leave(place)``.

    >>> room = Room(places=1); room.enter("a", 0.0), room.enter("b", 0.0)
    (True, False)
    >>> room.leave("b"); room.leave("a"); room.enter("b", 0.0)
    True
    """

    def __init__(self, places: int):
        self._places = places
        self._inside: set[object] = set()
        self._waiting: set[object] = set()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._lock = _locks.lock()

    @property
    def queued(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def enter(self, place: object, seconds: float) -> bool:
        """Take a place, waiting for one at most so long; return whether there was one."""
        if self._has_taken(place):
            return True
        until = monotonic() + seconds
        self._waiting.add(place)
        try:
            while not self._has_taken(place):
                left = until - monotonic()
                if left <= 0:
                    return False
                self._nap(min(left, NAP))
            return True
        finally:
            self._waiting.discard(place)

    async def entered(self, place: object, seconds: float) -> bool:
        """Return what `enter` does: a coroutine that never suspends."""
        return self.enter(place, seconds)

    def leave(self, place: object) -> None:
        """Give a place back."""
        self._inside.discard(place)
        if self._waiting:
            self._wake.put(None)

    def _has_taken(self, place: object) -> bool:
        with self._lock:
            if len(self._inside) < self._places:
                self._inside.add(place)
                return True
        return False

    def _nap(self, seconds: float) -> None:
        try:
            self._wake.get(timeout=seconds)
        except Empty:
            pass


class Budget:
    """One call's dealings with Redis.

    Attributes:
        started: When the call began, on the monotonic clock.
        left: Seconds that it may still wait for Redis.
        probe: Whether it goes through a breaker that is open.
        lost: The gates that have failed it: they are not tried again.
    """

    __slots__ = ("left", "lost", "probe", "started")

    def __init__(self, probe: bool = False, started: float | None = None):
        self.started = monotonic() if started is None else started
        self.left = BUDGET
        self.probe = probe
        self.lost: list[Gate] = []

    def again(self) -> "Budget":
        """Return a whole budget for another load of the same call, which shares the lost gates."""
        budget = Budget(self.probe, self.started)
        budget.lost = self.lost
        return budget


class Gate:
    """The way to one server, or to one shard of a cluster.

    Args:
        client: What commands are sent with.
        counts: Where failures are counted.
        breaker: That of the server, shared by all that talk to it.
        shard: The name of the primary of a shard.
        siblings: The gates of all shards: they fail together where no node answers.
    """

    def __init__(
        self,
        client: Client,
        counts: Counts,
        breaker: Breaker,
        shard: str = "",
        siblings: "dict[str, Gate] | None" = None,
    ):
        self.breaker = breaker
        self.shard = shard
        self._siblings = {} if siblings is None else siblings
        self._client = client
        self._counts = counts
        self._is_ours = is_ours(client)
        pool = getattr(client, "connection_pool", None)
        self._limit = min(getattr(pool, "max_connections", AT_ONCE), 1000)
        self._pool = pool
        self._rooms: PerLoop[asyncio.Semaphore] = PerLoop(lambda: asyncio.Semaphore(self._limit))
        self._took = 0.0  # seconds that the last call took
        self.renew()
        _gates.add(self)

    def renew(self) -> None:
        """Make room for as many calls as the client can carry; in a forked child, where none is."""
        self._room = Room(self._limit)

    def call(self, budget: Budget, command: Callable[..., Any], *args: Any) -> Any:
        """Return what Redis replies to a command, or the Mark of why it did not.

        An exception that is not Redis's or the network's, such as a time limit that a signal
        handler raises, reaches the caller.
        """
        place, limit = object(), deadlines.DEADLINE.until
        try:
            if not self._has_room(place) or self._is_shut(budget):
                return Mark.UNAVAILABLE
            began = monotonic()
            try:
                deadlines.DEADLINE.until = began + budget.left
                reply = command(*args)
            except Exception as error:
                return self._failed(budget, error, monotonic() - began)
            finally:
                deadlines.DEADLINE.until = limit
        finally:
            self._room.leave(place)
        if not self.breaker.is_quiet:
            self.breaker.succeeded()
        self._took = monotonic() - began
        budget.left -= self._took
        return reply

    async def call_async(self, budget: Budget, command: Callable[..., Any], *args: Any) -> Any:
        """Return what Redis replies to a command, as `call` does."""
        room = self._rooms.here()
        if not await self._has_room_async(room, budget):
            return Mark.UNAVAILABLE
        try:
            if self._is_shut(budget):
                return Mark.UNAVAILABLE
            began = monotonic()
            limit = deadlines_async.DEADLINE.set(began + budget.left)
            try:
                reply = await self._bounded(budget, command(*args))
            except Exception as error:
                return self._failed(budget, error, monotonic() - began)
            finally:
                deadlines_async.DEADLINE.reset(limit)
        finally:
            room.release()
        if not self.breaker.is_quiet:
            self.breaker.succeeded()
        self._took = monotonic() - began
        budget.left -= self._took
        return reply

    def opens(self, budget: Budget, place: object) -> bool:
        """Wait for room for a call; say whether it may be made. Leave the room in any case."""
        return self._has_room(place) and not self._is_shut(budget)

    def leave(self, place: object) -> None:
        """Leave the room that a call had, if it had."""
        self._room.leave(place)

    async def opens_async(self, budget: Budget, places: list[asyncio.Semaphore]) -> bool:
        """Do what `opens` does; add the place to places, where each is to be released."""
        room = self._rooms.here()
        if not await self._has_room_async(room, budget):
            return False
        places.append(room)
        return not self._is_shut(budget)

    def refused(self, error: ResponseError) -> Mark:
        """Count an answer by which Redis said no; return what that means for a read or a load."""
        if isinstance(error, ReadOnlyError):  # demoted: the address may lead to another server now
            self._drop_connections()
        self._counts.failure(error)
        if "WRONGTYPE" in str(error):
            self._counts.say("other type", "met a key of another type, which it leaves alone")
            return Mark.OTHER_TYPE
        return Mark.UNLEASED

    def failed(self, budget: Budget, error: Exception) -> Mark:
        """Count an answer that did not come, or made no sense."""
        if isinstance(error, ResponseError) and not shards.is_failure(error):
            self.breaker.succeeded()  # it is there, and says no
            return self.refused(error)
        for gate in (
            self,
            *(self._siblings.copy().values() if shards.is_everywhere(error) else ()),
        ):
            if gate not in budget.lost:
                gate.breaker.failed()
                budget.lost.append(gate)
        self._counts.failure(error)
        return Mark.UNAVAILABLE

    def answered(self, seconds: float) -> None:
        """Count an answer that took so long."""
        if not self.breaker.is_quiet:
            self.breaker.succeeded()
        self._took = seconds

    def _failed(self, budget: Budget, error: Exception, took: float) -> Mark:
        if (theirs := foreign(error)) is not None:
            raise theirs
        budget.left -= took
        self._took = took
        return self.failed(budget, error)

    def _is_shut(self, budget: Budget) -> bool:
        if budget.left <= 0 or self in budget.lost:
            return True
        return not (self.breaker.is_quiet or budget.probe or self.breaker.allows())

    def _has_room(self, place: object) -> bool:
        """Wait for room for a call: not Redis's fault, unless it has become slow."""
        if not self._is_ours and not self._can_be_entered():
            return False
        if deadlines.DEADLINE.until < inf:  # a handler has interrupted this thread in a call
            return True
        until = monotonic() + deadlines.QUEUE
        while not self._room.enter(place, BUDGET):
            if self._took > SLOW or monotonic() > until:
                return False
        return True

    async def _has_room_async(self, room: asyncio.Semaphore, budget: Budget) -> bool:
        began = monotonic()
        while room.locked():
            due = monotonic() + BUDGET
            try:
                async with asyncio.timeout(BUDGET):
                    await room.acquire()
            except TimeoutError:
                was_away = monotonic() > due + SLOW  # the loop, and not Redis
                if self._took > SLOW and not was_away or monotonic() > began + deadlines.QUEUE:
                    return False
            else:
                if not self.breaker.is_quiet:  # it was Redis that was waited for
                    budget.left -= monotonic() - began
                return True
        return await room.acquire()

    def _can_be_entered(self) -> bool:
        """Say whether the pool of a stranger's client is free of its mutex.

        A signal handler or a finaliser may have interrupted this very thread inside of it.
        """
        mutex = getattr(getattr(self._pool, "pool", None), "mutex", None)  # new after a fork
        if mutex is None:
            return True
        if not mutex.acquire(timeout=MUTEX):
            return False
        mutex.release()
        return True

    async def _bounded(self, budget: Budget, reply: Any) -> Any:
        if self._is_ours:  # its connections heed DEADLINE
            return await reply
        async with asyncio.timeout(budget.left):
            return await reply

    def _drop_connections(self) -> None:
        if isinstance(self._client, (redis.asyncio.Redis, redis.asyncio.RedisCluster)):
            drop_connections_async(self._client)
        else:
            drop_connections(self._client)


async def blocking(gate: Gate, budget: Budget, command: Callable[..., Any], *args: Any) -> Any:
    """Return what `Gate.call` does: a coroutine that never suspends."""
    return gate.call(budget, command, *args)


async def blocking_each(
    gates: "Gates", budget: Budget, command: Callable[..., Any], *args: Any
) -> "Replies":
    """Return what `Gates.call_each` does: a coroutine that never suspends."""
    return gates.call_each(budget, command, *args)


async def awaiting(gate: Gate, budget: Budget, command: Callable[..., Any], *args: Any) -> Any:
    """Return what `Gate.call_async` does."""
    return await gate.call_async(budget, command, *args)


async def awaiting_each(
    gates: "Gates", budget: Budget, command: Callable[..., Any], *args: Any
) -> "Replies":
    """Return what `Gates.call_each_async` does."""
    return await gates.call_each_async(budget, command, *args)


Replies = dict[Gate, tuple[list[str], "list[Any] | Mark"]]


class Gates:
    """The gates of a client: `only` one, or on a cluster one for each shard.

    Args:
        client: A redis.Redis or RedisCluster, or an asyncio one.
        counts: Where failures are counted.
        prefix: What keys start with, in front of an id.
    """

    def __init__(self, client: Client, counts: Counts, prefix: str = ""):
        self._client = client
        self._counts = counts
        self._prefix = prefix
        self._gates: dict[str, Gate] = {}
        self.only = None if shards.is_cluster(client) else self._gate("")

    @property
    def state(self) -> str:
        """'open' if one of the breakers is, else 'closed'."""
        states = [gate.breaker.state for gate in self._gates.copy().values()]
        return "open" if "open" in states else "closed"

    @property
    def states(self) -> dict[str, str]:
        """The state of each breaker by the address of its server, without credentials."""
        gates = self._gates.copy()
        if self.only:
            gates[place_of(self._client)] = gates.pop("", self.only)
        return {shard or "unknown": gate.breaker.state for shard, gate in gates.items()}

    def of(self, key: str) -> Gate:
        """Return the gate to the server that holds a key."""
        return self.only or self._gate(self._shard(key))

    def split(self, ids: Iterable[str]) -> dict[Gate, list[str]]:
        """Return the ids of each gate."""
        parts: dict[Gate, list[str]] = {}
        for id in ids:
            parts.setdefault(self.of(self._prefix + id), []).append(id)
        return parts

    def call_each(
        self, budget: Budget, command: Callable[..., Any], entries: Entries, *more: Any
    ) -> Replies:
        """Return the ids behind each gate, and what they got: replies or a Mark; all at once."""
        place, limit = object(), deadlines.DEADLINE.until
        parts = self.split(entries)
        came: Replies = {gate: (ids, Mark.UNAVAILABLE) for gate, ids in parts.items()}
        try:
            # In one order always, or calls that have the last rooms would wait in a circle.
            opened = [gate for gate in sorted(parts, key=_shard_of) if gate.opens(budget, place)]
            if opened:
                began = monotonic()
                deadlines.DEADLINE.until = began + budget.left
                replies = command(only(entries, chain(*(parts[gate] for gate in opened))), *more)
                came |= self._settled(budget, parts, opened, replies, monotonic() - began)
        finally:
            deadlines.DEADLINE.until = limit
            for gate in parts:
                gate.leave(place)
        return came

    async def call_each_async(
        self, budget: Budget, command: Callable[..., Any], entries: Entries, *more: Any
    ) -> Replies:
        """Return what `call_each` does."""
        rooms: list[asyncio.Semaphore] = []
        parts = self.split(entries)
        came: Replies = {gate: (ids, Mark.UNAVAILABLE) for gate, ids in parts.items()}
        try:
            order = sorted(parts, key=_shard_of)
            opened = [gate for gate in order if await gate.opens_async(budget, rooms)]
            if opened:
                began = monotonic()
                limit = deadlines_async.DEADLINE.set(began + budget.left)
                try:
                    replies = await command(
                        only(entries, chain(*(parts[gate] for gate in opened))), *more
                    )
                finally:
                    deadlines_async.DEADLINE.reset(limit)
                came |= self._settled(budget, parts, opened, replies, monotonic() - began)
        finally:
            for room in rooms:
                room.release()
        return came

    def _settled(
        self,
        budget: Budget,
        parts: dict[Gate, list[str]],
        opened: list[Gate],
        replies: list[Any],
        took: float,
    ) -> Replies:
        """Return what each gate got of the replies, and count it as an answer or as none."""
        budget.left -= took
        rest = iter(replies)
        came = {gate: list(islice(rest, len(parts[gate]))) for gate in opened}
        lost = {gate for gate, part in came.items() if all(map(shards.is_failure, part))}
        for gate in came.keys() - lost:
            gate.answered(0.0 if lost else took)  # who is read after another is not slow itself
        failed = {gate: gate.failed(budget, came[gate][0]) for gate in lost}
        return {gate: (parts[gate], failed.get(gate, came[gate])) for gate in opened}

    def _gate(self, shard: str) -> Gate:
        if gate := self._gates.get(shard):
            return gate
        breaker = breaker_of(server_of(self._client, shard))
        gate = Gate(self._client, self._counts, breaker, shard, self._gates)
        return self._gates.setdefault(shard, gate)

    def _shard(self, key: str) -> str:
        """Return the name of the primary that holds a key, "" while the cluster is not known."""
        node = shards.primary(self._client, key)
        return str(node.name) if node else ""


def _shard_of(gate: Gate) -> str:
    return gate.shard


def only(entries: Entries, ids: Iterable[str]) -> Entries:
    """Return the entries of some ids, in their order."""
    return {id: entries[id] for id in ids} if isinstance(entries, Mapping) else list(ids)


def server_of(client: Any, shard: str = "") -> tuple[Any, ...]:
    """Return what tells the server of a client, and the user on it, from others.

    shard: The primary of a shard that is meant, not the whole cluster.
    """
    if shards.is_cluster(client):
        settings = client.get_connection_kwargs()
        names = [node.name for node in client.nodes_manager.startup_nodes.values()]
        place: tuple[Any, ...] = ("cluster", *([shard] if shard else sorted(names)))
    else:
        settings = client.connection_pool.connection_kwargs
        service = getattr(client.connection_pool, "service_name", None)  # behind Sentinel
        place = service, *(settings.get(name) for name in ("host", "port", "path", "db"))
    return *place, hash((settings.get("username"), settings.get("password")))


def place_of(client: Any) -> str:
    """Return where a client goes that is no cluster's: a service, a path, or host and port."""
    settings = client.connection_pool.connection_kwargs
    service = getattr(client.connection_pool, "service_name", None)
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    return str(service or settings.get("path") or f"{host}:{port}")


def breaker_of(server: tuple[Any, ...]) -> Breaker:
    """Return the breaker of a server, the same for all of this process that talk to it."""
    with _registry:
        return _breakers.setdefault(server, Breaker())


def _renew() -> None:
    for gate in list(_gates):
        gate.renew()


_registry = _locks.lock()
_breakers: weakref.WeakValueDictionary[tuple[Any, ...], Breaker] = weakref.WeakValueDictionary()
_gates: weakref.WeakSet[Gate] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
