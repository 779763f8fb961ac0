"""Write-behind: a put ends when a Redis Stream has it, and workers bring it to the database.

The worker is `cachelab.writes.worker`. The two producers stand side by side and read alike.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from cachelab import _check
from cachelab.cache import AsyncCacheAside, CacheAside
from cachelab.cache.codec import encode, from_json
from cachelab.cache.stats import Tally
from cachelab.clients import check_client, shards
from cachelab.errors import CachelabError, RedisUnavailable, WritesFull, WriteUncertain
from cachelab.writes.stream import Message, Stream, held, patience

V = TypeVar("V")

POLL = (0.005, 0.1)  # seconds between looks whether the stream has room: the first, the longest
PROBE = ("WAITAOF", "1", "0", "1")  # whether the server knows it, and keeps a file
UNSURE = "The write may or may not have been recorded."
READ = "Which writes wait cannot be told."
NO_READ = "get needs a cache or a load, where what is not pending is read: WriteBehind(load=...)"


@dataclass(frozen=True)
class WriteStats:
    """What a producer has counted since it was made; each put is exactly one of the four."""

    acknowledged: int
    refused: int  # the stream was full: WritesFull
    uncertain: int  # recorded, with fewer copies than asked for: WriteUncertain
    failed: int  # no answer: RedisUnavailable


class _Producer:
    """What both producers are made of, and make of a reply."""

    def __init__(
        self,
        client: Any,
        name: str,
        max_length: int,
        max_wait: float,
        replicas: int,
        fsync: bool,
        wait_timeout: float | None,
    ):
        self.stream = Stream(client, name)
        self.max_length = _check.whole("max_length", max_length, least=1)
        self.max_wait = _check.wait("max_wait", max_wait)
        self.replicas = _check.whole("replicas", replicas, least=0, most=1000)
        self.fsync = _check.choice("fsync", fsync, (True, False))
        self.wait_ms = _wait_ms(client, wait_timeout)
        self.is_probed = not fsync
        self.acknowledged, self.refused, self.uncertain, self.failed = (Tally() for _ in range(4))

    def command(self, id: str, value: Any) -> tuple[str, ...]:
        """Return the command that records a write, its arguments checked."""
        if isinstance(value, str):
            _check.text("value", value)
        text = encode(_check.identity("id", id), value, "the value put for")
        return self.stream.put(id, text, self.max_length)

    @property
    def behind(self) -> list[tuple[str, ...]]:
        """The command that waits for copies, sent behind the write on the same connection."""
        if self.fsync:
            return [("WAITAOF", "1", str(self.replicas), str(self.wait_ms))]
        return [("WAIT", str(self.replicas), str(self.wait_ms))] if self.replicas else []

    def probed(self, reply: Any) -> None:
        """Raise where the server cannot tell what is on its disk, before anything is recorded."""
        if isinstance(reply, ResponseError):
            self.failed.one()
            raise CachelabError(
                "fsync=True needs Redis 7.2 or newer with appendonly yes; this server says: "
                f"{str(reply).rstrip('.')}. Nothing was recorded."
            )
        self.is_probed = True

    def message_id(self, id: str, replies: list[Any]) -> str | None:
        """Return the id of the message that was recorded, None where there was no room."""
        recorded, *copies = replies
        if isinstance(recorded, Exception):
            self.failed.one()
            if shards.is_failure(recorded):
                raise self.stream.away(recorded, UNSURE)
            is_demoted = isinstance(recorded, ReadOnlyError)  # since a first try, perhaps
            raise self.stream.refused(recorded, UNSURE if is_demoted else "Nothing was recorded.")
        is_in, told = recorded
        if not is_in:
            return None
        message: str = told.decode()
        if copies:
            self._count(id, message, copies[0])
        self.acknowledged.one()
        return message

    def full(self, id: str) -> WritesFull:
        self.refused.one()
        waited = f" for {self.max_wait:g} s (max_wait)" if self.max_wait else ""
        return WritesFull(
            f"the write of {id!r} was refused: the stream {self.stream.name!r} has held "
            f"{self.max_length:,} messages (max_length){waited}. Start more workers, or look which "
            f"group is behind: XINFO GROUPS {self.stream.stream}"
        )

    def away(self, error: Exception, then: str) -> RedisUnavailable:
        """Return what to raise where no reply came."""
        if then is UNSURE:
            self.failed.one()
        return self.stream.away(error, then)

    def waits(self, reply: Any) -> Message | None:
        """Return the write that an id waits for, from the reply."""
        return held(self.answer(reply))

    def answer(self, reply: Any) -> Any:
        """Return a reply, or raise what came instead of it."""
        if shards.is_failure(reply):
            raise self.stream.away(reply, READ)
        if isinstance(reply, Exception):
            raise self.stream.refused(reply, READ)
        return reply

    @property
    def stats(self) -> WriteStats:
        counts = self.acknowledged, self.refused, self.uncertain, self.failed
        return WriteStats(*map(int, counts))

    def _count(self, id: str, message: str, copies: Any) -> None:
        """Raise unless as many copies were seen as are asked for."""
        if isinstance(copies, Exception):
            seen = f"how many copies there are is not known ({copies})"
        elif self.fsync:
            local, others = copies
            if local >= 1 and others >= self.replicas:
                return
            here = "it is on the server's disk" if local else "it is not yet on the server's disk"
            seen = f"{here}, and on those of {others} of {self.replicas} replicas"
        elif copies >= self.replicas:
            return
        else:
            seen = f"{copies} of {self.replicas} replicas have it"
        self.uncertain.one()
        raise WriteUncertain(
            f"the write of {id!r} is recorded as {message}, and after {self.wait_ms / 1000:g} s "
            f"(wait_timeout) {seen}. It will be applied unless the server is lost before.",
            message,
        )


class WriteBehind(Generic[V]):
    """Acknowledge writes when a stream has them; workers bring them to the database later.

    `put` returns when the stream has the write, and `get` gives this and every other producer's
    own writes at once. What is acknowledged is kept as safely as Redis keeps it: on a server
    without persistence a crash loses what no worker has applied; ``fsync`` waits for the disk,
    ``replicas`` for copies. The server must not evict (maxmemory-policy noeviction).

    All keys of a name are in one slot, so one name is one shard of a cluster: several names share
    the load. A name stands for one stream in a database that workers write to.

    Args:
        client: A redis.Redis or RedisCluster, best from `connect`.
        name: What the keys are called by: {name}:stream, {name}:pending, {name}:tries, and
            {name}:aside for what could not be applied.
        cache: Where `get` reads what no write is pending for; give it to the workers, too.
        load: A function of an id that reads its row, where there is no cache.
        max_length: Messages that wait at most; a put beyond is refused, never dropped.
        max_wait: Seconds that a put waits for room before that.
        replicas: How many replicas must have a write before it is acknowledged (WAIT).
        fsync: Whether the server must have it on its disk, and so its replicas (WAITAOF). Sure
            under appendfsync always: under everysec Valkey 9.1 and some Redis 7.4 say so up to a
            second too early (redis/redis pull request 13793).
        wait_timeout: Seconds to wait for that, less than the client's timeout; None for half of it.
            Under appendfsync everysec a second passes: ``connect(timeout=3)``.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        name: str = "writes",
        cache: CacheAside[V] | None = None,
        load: Callable[[str], V | None] | None = None,
        max_length: int = 10_000,
        max_wait: float = 0.0,
        replicas: int = 0,
        fsync: bool = False,
        wait_timeout: float | None = None,
    ):
        check_client(client, "sync", "connect")
        _check_reading(cache, load, CacheAside)
        self._read = cache.get if cache is not None else load
        self._producer = _Producer(
            client, name, max_length, max_wait, replicas, fsync, wait_timeout
        )

    def put(self, id: str, value: V | None) -> str:
        """Record a write: the value that the id is to have, or None to delete its row.

        Returns:
            The id of its message in the stream, "milliseconds-sequence".

        Raises:
            WritesFull: The stream has had no room within max_wait; nothing was recorded.
            WriteUncertain: It is recorded, and fewer copies than asked for were seen in time.
            RedisUnavailable: Redis gave no answer, and may have recorded it, or refused.
            TypeError: The value is not JSON; nothing was recorded.
            ValueError: The id is no text of 1 to 512 bytes; nothing was recorded.
        """
        producer = self._producer
        command = producer.command(id, value)
        if not producer.is_probed:
            producer.probed(self._send("Nothing was recorded.", PROBE)[0])
        until, pause = time.monotonic() + producer.max_wait, POLL[0]
        while True:
            replies = self._send(UNSURE, command, *producer.behind)
            message = producer.message_id(id, replies)
            if message is not None:
                return message
            left = until - time.monotonic()
            if left <= 0:
                raise producer.full(id)
            time.sleep(min(pause, left))
            pause = min(2 * pause, POLL[1])

    def get(self, id: str) -> V | None:
        """Return what the id is to have if a write of it waits, else what cache or load says.

        Raises:
            RedisUnavailable: Whether a write waits cannot be told.
            Exception: Whatever cache or load raises.
        """
        waits = self._waits(id)
        if waits is not None:
            value: V | None = from_json(waits.text)
            return value
        if self._read is None:
            raise ValueError(NO_READ)
        return self._read(id)

    def pending(self, id: str) -> str | None:
        """Return the message id of the latest write that waits for the id, None if none does."""
        waits = self._waits(id)
        return waits.message_id if waits else None

    def length(self) -> int:
        """Return how many messages the stream holds: not applied by every group, or not trimmed."""
        producer = self._producer
        return int(producer.answer(self._send(READ, producer.stream.length)[0]))

    @property
    def stream(self) -> Stream:
        """Where its writes wait, for what watches them."""
        return self._producer.stream

    @property
    def stats(self) -> WriteStats:
        """The counts so far, as a `WriteStats` that does not change any more."""
        return self._producer.stats

    def _waits(self, id: str) -> Message | None:
        producer = self._producer
        command = producer.stream.pending_of(_check.identity("id", id))
        return producer.waits(self._send(READ, command)[0])

    def _send(self, then: str, *commands: tuple[str, ...]) -> list[Any]:
        """Return the replies to commands; raise where none came, telling what that means."""
        try:
            replies: list[Any] = self._producer.stream.send(*commands)
        except (RedisError, OSError) as error:
            raise self._producer.away(error, then) from error
        return replies


class AsyncWriteBehind(Generic[V]):
    """The asyncio twin of `WriteBehind`, with the same arguments and the same stream.

    Args:
        client: A redis.asyncio.Redis or RedisCluster, best from `connect_async`.
        name: What the keys are called by.
        cache: Where `get` reads what no write is pending for.
        load: An async function of an id that reads its row, where there is no cache.
        max_length: Messages that wait at most; a put beyond is refused, never dropped.
        max_wait: Seconds that a put waits for room before that.
        replicas: How many replicas must have a write before it is acknowledged (WAIT).
        fsync: Whether the server must have it on its disk (WAITAOF): sure under appendfsync always.
        wait_timeout: Seconds to wait for that, less than the client's timeout.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        name: str = "writes",
        cache: AsyncCacheAside[V] | None = None,
        load: Callable[[str], Awaitable[V | None]] | None = None,
        max_length: int = 10_000,
        max_wait: float = 0.0,
        replicas: int = 0,
        fsync: bool = False,
        wait_timeout: float | None = None,
    ):
        check_client(client, "async", "connect_async")
        _check_reading(cache, load, AsyncCacheAside)
        self._read = cache.get if cache is not None else load
        self._producer = _Producer(
            client, name, max_length, max_wait, replicas, fsync, wait_timeout
        )

    async def put(self, id: str, value: V | None) -> str:
        """Record a write and return its message id; raises as `WriteBehind.put` does."""
        producer = self._producer
        command = producer.command(id, value)
        if not producer.is_probed:
            producer.probed((await self._send("Nothing was recorded.", PROBE))[0])
        until, pause = time.monotonic() + producer.max_wait, POLL[0]
        while True:
            replies = await self._send(UNSURE, command, *producer.behind)
            message = producer.message_id(id, replies)
            if message is not None:
                return message
            left = until - time.monotonic()
            if left <= 0:
                raise producer.full(id)
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, POLL[1])

    async def get(self, id: str) -> V | None:
        """Return what the id is to have, as `WriteBehind.get` does."""
        waits = await self._waits(id)
        if waits is not None:
            value: V | None = from_json(waits.text)
            return value
        if self._read is None:
            raise ValueError(NO_READ)
        return await self._read(id)

    async def pending(self, id: str) -> str | None:
        """Return the message id of the latest write that waits for the id, None if none does."""
        waits = await self._waits(id)
        return waits.message_id if waits else None

    async def length(self) -> int:
        """Return how many messages the stream holds: not applied by every group, or not trimmed."""
        producer = self._producer
        return int(producer.answer((await self._send(READ, producer.stream.length))[0]))

    @property
    def stream(self) -> Stream:
        """Where its writes wait, for what watches them."""
        return self._producer.stream

    @property
    def stats(self) -> WriteStats:
        """The counts so far, as a `WriteStats` that does not change any more."""
        return self._producer.stats

    async def _waits(self, id: str) -> Message | None:
        producer = self._producer
        command = producer.stream.pending_of(_check.identity("id", id))
        return producer.waits((await self._send(READ, command))[0])

    async def _send(self, then: str, *commands: tuple[str, ...]) -> list[Any]:
        """Return the replies to commands; raise where none came, telling what that means."""
        try:
            replies: list[Any] = await self._producer.stream.send(*commands)
        except (RedisError, OSError) as error:
            raise self._producer.away(error, then) from error
        return replies


def _check_reading(cache: Any, load: Any, kind: type) -> None:
    if cache is not None and not isinstance(cache, kind):
        raise TypeError(f"cache must be a {kind.__name__}, not {cache!r}")
    if load is not None and not callable(load):
        raise TypeError(f"load must be a function, not {load!r}")
    if cache is not None and load is not None:
        raise ValueError(
            "load must be left out where there is a cache, which has a load of its own"
        )


def _wait_ms(client: Any, seconds: float | None) -> int:
    """Return the milliseconds that WAIT may take of the time that the client waits for a reply."""
    longest = patience(client)
    if seconds is None:
        return max(1, round(500 * min(longest, 2.0)))
    seconds = _check.number("wait_timeout", seconds, above=0)
    if seconds > 0.8 * longest:
        raise ValueError(
            f"wait_timeout must be at most 0.8 of the client's timeout of {longest:g} s, not "
            f"{seconds:g}: make the client by connect(timeout=...) with a longer one"
        )
    return max(1, round(1000 * seconds))
