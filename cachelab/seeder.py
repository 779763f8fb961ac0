"""Write users to Redis, by every method that the timing experiments compare."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisClusterException

from cachelab import _check
from cachelab._extras import need
from cachelab.clients import check_client
from cachelab.clients.shards import Command, exchange, exchange_async, is_cluster
from cachelab.errors import SeedError
from cachelab.users import generate_users

Batch = dict[str, str]  # key to value
Expire = dict[str, Any]  # the options of SET that make a key expire, or none

_AT_ONCE = 50  # commands in flight for threads and gather; the client's pool may allow fewer


@dataclass(frozen=True, slots=True)
class SeedReport:
    """What a seeding did.

    Attributes:
        count: Users that were to be written.
        written: Users that were, the first ones.
        seconds: Wall-clock time that it took.
        round_trips: How often Redis was waited for; retries of the client are not counted.
        method: How they were written.
    """

    count: int
    written: int
    seconds: float
    round_trips: int
    method: str

    @property
    def rate(self) -> float:
        """Users written per second."""
        return self.written / self.seconds


def seed(
    client: redis.Redis | redis.RedisCluster,
    count: int = 1000,
    batch_size: int = 100,
    method: str = "pipeline",
    prefix: str = "",
    ttl: float | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> SeedReport:
    """Write generated users as plain strings at ``prefix + id``, replacing what is there.

    Users are generated and written ``batch_size`` at a time, so any count fits in memory. Seeding
    again completes what was stopped: the same seed gives the same users.

    Args:
        client: Where to.
        count: How many users.
        batch_size: Users in a batch; larger than ``count`` means one batch.
        method: "one_by_one" (a SET a round trip), "threads" (the same from up to 50 threads),
            "pipeline" (the SETs of a batch in one round trip, no transaction) or "bulk" (a batch
            as one MSET, or as SETs packed by hand where there is a ttl). On a cluster the last two
            send each node its part of a batch, as SETs, before they wait for any.
        prefix: What each key begins with.
        ttl: Whole or fractional seconds. None means that the keys never expire: they hold their
            memory until they are deleted, and a server whose policy evicts only keys with a ttl
            can never take it back.
        seed: Of the values; None for new ones each time.
        progress: Show a bar, in the terminal or the notebook; needs the extra "lab".

    Returns:
        What was done.

    Raises:
        TypeError: An argument is of the wrong type; nothing has been written.
        ValueError: An argument breaks its rule; nothing has been written.
        SeedError: Redis failed on the way. Its ``report`` tells how many of the first users are
            there; so does the ``report`` of a KeyboardInterrupt.
    """
    check_client(client, "sync", "connect")
    count = _check.whole("count", count, least=0)
    batches = _batches(count, batch_size, prefix, seed)
    expire = _expire(ttl)
    methods: dict[str, Any] = _CLUSTER_METHODS if is_cluster(client) else _METHODS
    write = methods[_check.choice("method", method, tuple(methods))]
    with _counting(count, method, progress) as (wrote, report):
        for batch in batches:
            write(client, batch, expire)
            wrote(len(batch))
        return report()


async def seed_async(
    client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
    count: int = 1000,
    batch_size: int = 100,
    method: str = "pipeline",
    prefix: str = "",
    ttl: float | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> SeedReport:
    """Write generated users as ``seed`` does, awaiting Redis.

    Args:
        client: Where to.
        count: How many users.
        batch_size: Users in a batch; larger than ``count`` means one batch.
        method: "one_by_one", "gather" (SETs from up to 50 tasks at once), "pipeline" or "bulk".
        prefix: What each key begins with.
        ttl: Whole or fractional seconds; None means that the keys never expire.
        seed: Of the values; None for new ones each time.
        progress: Show a bar, in the terminal or the notebook; needs the extra "lab".

    Returns:
        What was done.

    Raises:
        TypeError: An argument is of the wrong type; nothing has been written.
        ValueError: An argument breaks its rule; nothing has been written.
        SeedError: Redis failed on the way. Its ``report`` tells how many of the first users are
            there; so does the ``report`` of a cancellation.
    """
    check_client(client, "async", "connect_async")
    count = _check.whole("count", count, least=0)
    batches = _batches(count, batch_size, prefix, seed)
    expire = _expire(ttl)
    methods: dict[str, Any] = _ASYNC_CLUSTER_METHODS if is_cluster(client) else _ASYNC_METHODS
    write = methods[_check.choice("method", method, tuple(methods))]
    with _counting(count, method, progress) as (wrote, report):
        for batch in batches:
            await write(client, batch, expire)
            wrote(len(batch))
        return report()


def _one_by_one(client: redis.Redis, batch: Batch, expire: Expire) -> None:
    for key, value in batch.items():
        client.set(key, value, **expire)


async def _one_by_one_async(client: redis.asyncio.Redis, batch: Batch, expire: Expire) -> None:
    for key, value in batch.items():
        await client.set(key, value, **expire)


def _threads(client: redis.Redis, batch: Batch, expire: Expire) -> None:
    users = iter(batch.items())  # the threads share one iterator: each user is taken once
    stopped = threading.Event()

    def work() -> None:
        for key, value in users:
            if stopped.is_set():
                return
            client.set(key, value, **expire)

    width = _width(client, batch)
    workers = ThreadPoolExecutor(width)
    try:
        for done in [workers.submit(work) for _ in range(width)]:
            done.result()
    finally:  # an interrupt waits for no thread: each ends after the command that it is in
        stopped.set()
        workers.shutdown(wait=False, cancel_futures=True)


async def _gather(client: redis.asyncio.Redis, batch: Batch, expire: Expire) -> None:
    users = iter(batch.items())

    async def work() -> None:
        for key, value in users:
            await client.set(key, value, **expire)

    try:
        async with asyncio.TaskGroup() as workers:  # unlike gather, it ends the others with one
            for _ in range(_width(client, batch)):
                workers.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _pipeline(client: redis.Redis, batch: Batch, expire: Expire) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for key, value in batch.items():
            pipeline.set(key, value, **expire)
        pipeline.execute()


async def _pipeline_async(client: redis.asyncio.Redis, batch: Batch, expire: Expire) -> None:
    async with client.pipeline(transaction=False) as pipeline:
        for key, value in batch.items():
            pipeline.set(key, value, **expire)
        await pipeline.execute()


def _bulk(client: redis.Redis, batch: Batch, expire: Expire) -> None:
    sent, replies = _packed(batch, expire)
    pool: Any = client.connection_pool  # half of it is untyped
    connection = pool.get_connection()

    def exchange() -> None:
        connection.send_packed_command([sent])
        for _ in range(replies):
            connection.read_response()

    try:
        connection.retry.call_with_retry(exchange, lambda _: connection.disconnect())
    except BaseException:
        # replies still on their way must never reach the next caller
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


async def _bulk_async(client: redis.asyncio.Redis, batch: Batch, expire: Expire) -> None:
    sent, replies = _packed(batch, expire)
    pool: Any = client.connection_pool  # half of it is untyped
    connection = await pool.get_connection()

    async def exchange() -> None:
        await connection.send_packed_command([sent])
        for _ in range(replies):
            await connection.read_response()

    try:
        await connection.retry.call_with_retry(exchange, lambda _: connection.disconnect())
    except BaseException:
        # replies still on their way must never reach the next caller
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)


def _to_nodes(client: redis.RedisCluster, batch: Batch, expire: Expire) -> None:
    _check_written(exchange(client, _sets(batch, expire)))


async def _to_nodes_async(client: redis.asyncio.RedisCluster, batch: Batch, expire: Expire) -> None:
    _check_written(await exchange_async(client, _sets(batch, expire)))


def _bulk_to_nodes(client: redis.RedisCluster, batch: Batch, expire: Expire) -> None:
    _check_written(exchange(client, _sets(batch, expire), _joined))


async def _bulk_to_nodes_async(
    client: redis.asyncio.RedisCluster, batch: Batch, expire: Expire
) -> None:
    _check_written(await exchange_async(client, _sets(batch, expire), _joined))


_METHODS = {"one_by_one": _one_by_one, "threads": _threads, "pipeline": _pipeline, "bulk": _bulk}
_ASYNC_METHODS = {
    "one_by_one": _one_by_one_async,
    "gather": _gather,
    "pipeline": _pipeline_async,
    "bulk": _bulk_async,
}
_CLUSTER_METHODS = _METHODS | {"pipeline": _to_nodes, "bulk": _bulk_to_nodes}
_ASYNC_CLUSTER_METHODS = _ASYNC_METHODS | {
    "pipeline": _to_nodes_async,
    "bulk": _bulk_to_nodes_async,
}
_BATCHED = ("pipeline", "bulk")  # a round trip a batch, the others one a user


def _packed(batch: Batch, expire: Expire) -> tuple[bytes, int]:
    """Return a batch as it goes over the wire, and how many replies it gets.

    It is one MSET, or a SET each with a ttl, joined by hand: the client packs each command by
    itself, in ten times the time. The format is RESP,
    https://redis.io/docs/latest/develop/reference/protocol-spec/.
    """
    users = [
        f"${len(key.encode())}\r\n{key}\r\n${len(value)}\r\n{value}\r\n"
        for key, value in batch.items()
    ]
    if not expire:
        return f"*{1 + 2 * len(users)}\r\n$4\r\nMSET\r\n{''.join(users)}".encode(), 1
    ((option, amount),) = expire.items()
    head = "*5\r\n$3\r\nSET\r\n"
    tail = f"$2\r\n{option}\r\n${len(str(amount))}\r\n{amount}\r\n"
    return "".join([head + user + tail for user in users]).encode(), len(users)


def _sets(batch: Batch, expire: Expire) -> list[Command]:
    """Return the SET of each user: on a cluster an MSET would take the keys of one slot alone."""
    more = [str(word) for option in expire.items() for word in option]
    return [(key, ("SET", key, value, *more)) for key, value in batch.items()]


def _joined(commands: list[tuple[str, ...]]) -> list[bytes]:
    """Return commands as they go over the wire, as `_packed` does."""
    lines = []
    for words in commands:
        lines.append(f"*{len(words)}")
        for word in words:
            lines += (f"${len(word.encode())}", word)
    return ["\r\n".join([*lines, ""]).encode()]


def _check_written(replies: list[Any]) -> None:
    """Raise what a node replied, or did instead, if one did not take its part of a batch."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def _width(client: object, batch: Batch) -> int:
    """Return how many commands may be in flight: as many as the client has connections for."""
    pool = getattr(client, "connection_pool", None)  # a cluster has one for each node
    return min(_AT_ONCE, len(batch), pool.max_connections if pool else _AT_ONCE)


def _batches(count: int, batch_size: int, prefix: str, seed: int | None) -> Iterator[Batch]:
    batch_size = _check.whole("batch_size", batch_size, least=1)
    users = generate_users(count, seed=seed)
    _check.identity("prefix with id", _check.text("prefix", prefix) + f"user-{count}")
    return iter(lambda: {prefix + id: value for id, value in islice(users, batch_size)}, {})


def _expire(ttl: float | None) -> Expire:
    """Return the options of SET for a ttl: whole seconds as EX, fractional ones as PX."""
    if ttl is None:
        return {}
    milliseconds = _check.milliseconds("ttl", ttl)
    seconds, rest = divmod(milliseconds, 1000)
    return {"px": milliseconds} if rest else {"ex": seconds}


@contextmanager
def _counting(
    count: int, method: str, progress: bool
) -> Iterator[tuple[Callable[[int], None], Callable[[], SeedReport]]]:
    """Yield what counts users as written, and what reports: the report goes with an early end."""
    bar = None
    if _check.choice("progress", progress, (False, True)):
        need("progress=True", "lab")
        from tqdm.auto import tqdm

        bar = tqdm(total=count, unit=" users")
    written = batches = 0
    start = time.perf_counter()

    def wrote(users: int) -> None:
        nonlocal written, batches
        written += users
        batches += 1
        if bar is not None:
            bar.update(users)

    def report() -> SeedReport:
        round_trips = batches if method in _BATCHED else written
        return SeedReport(count, written, time.perf_counter() - start, round_trips, method)

    try:
        yield wrote, report
    except (redis.RedisError, RedisClusterException, OSError) as error:
        told = f"{written} of {count} users were written when Redis failed"
        cause = f"{type(error).__name__}: {error}"
        raise SeedError(f"{told}; seeding again completes them. {cause}", report()) from error
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        stop.report = report()  # type: ignore[union-attr]
        stop.add_note(f"{written} of {count} users were written; seeding again completes them.")
        raise
    finally:
        if bar is not None:
            bar.close()
