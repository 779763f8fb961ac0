"""Make users and write them to Redis, by every method that the timing experiments compare."""

import asyncio
import random
import string
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import redis
import redis.asyncio

from cachelab import _check
from cachelab.errors import SeedError

Batch = dict[str, str]  # key to value
Expire = dict[str, int]  # the options of SET that make a key expire, or none

_LETTERS = (string.ascii_letters + string.digits).encode()
_TABLE = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))
_UNFAIR = bytes(range(256 - 256 % len(_LETTERS), 256))  # bytes that would favour the first letters
_AT_ONCE = 50  # commands in flight for threads and gather; the client's pool may allow fewer


@dataclass(frozen=True, slots=True)
class SeedReport:
    """What a seeding did: ``written`` of ``count`` users in ``seconds``, waiting ``round_trips`` times.

    The users written are the first ``written`` ones; retries of the client are not counted as round trips.
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


def generate_users(count: int, id_length: int = 8, seed: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield ``count`` users as (id, value): "user-1" and a random text of ``id_length`` letters and digits.

    Nothing is generated before it is asked for. The same seed gives the same users, however many are asked for;
    without a seed they differ from call to call. Not for secrets.

    >>> list(generate_users(2, seed=0))
    [('user-1', 'thSEeXJK'), ('user-2', 'WojiggTP')]
    """
    _check.whole("count", count, least=0)
    _check.whole("id_length", id_length, least=1)
    return _users(count, id_length, None if seed is None else _check.whole("seed", seed, least=0))


def seed(
    client: redis.Redis,
    count: int = 1000,
    batch_size: int = 100,
    method: str = "pipeline",
    prefix: str = "",
    ttl: float | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> SeedReport:
    """Write ``count`` generated users as plain strings at ``prefix + id``, replacing what is there.

    method: "one_by_one" (a SET a round trip), "threads" (the same from up to 50 threads), "pipeline" (the SETs of a
    batch in one round trip, no transaction) or "bulk" (a batch as one MSET, or as SETs packed by hand where there is
    a ttl). Users are generated and written ``batch_size`` at a time, so that any count fits in memory.
    ttl: whole or fractional seconds; None means that the keys never expire: they hold their memory until they are
    deleted, and a server whose policy evicts only keys with a ttl can never take it back.
    seed: of the values; None for new ones each time. progress: show a bar, in the terminal or the notebook.

    Raises TypeError or ValueError before anything is written, and SeedError when Redis fails on the way: its
    ``report`` tells how many of the first users are there. So does the ``report`` of a KeyboardInterrupt. Seeding
    again completes the work.
    """
    _check_client(client, "seed")
    batches = _batches(count, batch_size, prefix, seed)
    expire, write = _expire(ttl), _METHODS[_check.choice("method", method, tuple(_METHODS))]
    with _counting(count, method, progress) as (wrote, report):
        for batch in batches:
            write(client, batch, expire)
            wrote(len(batch))
        return report()


async def seed_async(
    client: redis.asyncio.Redis,
    count: int = 1000,
    batch_size: int = 100,
    method: str = "pipeline",
    prefix: str = "",
    ttl: float | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> SeedReport:
    """Write ``count`` generated users as ``seed`` does, awaiting Redis.

    method: "one_by_one", "gather" (SETs from up to 50 tasks at once), "pipeline" or "bulk". A cancellation carries
    the ``report``, too.
    """
    _check_client(client, "seed_async")
    batches = _batches(count, batch_size, prefix, seed)
    expire, write = _expire(ttl), _ASYNC_METHODS[_check.choice("method", method, tuple(_ASYNC_METHODS))]
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
    users, stopped = iter(batch.items()), threading.Event()  # the threads share one iterator: each user is taken once

    def work() -> None:
        for key, value in users:
            if stopped.is_set():
                return
            client.set(key, value, **expire)

    workers = ThreadPoolExecutor(width := min(_AT_ONCE, client.connection_pool.max_connections, len(batch)))
    try:
        for done in [workers.submit(work) for _ in range(width)]:
            done.result()
    finally:  # an interrupt does not wait for the threads: each ends after the command that it is in
        stopped.set()
        workers.shutdown(wait=False, cancel_futures=True)


async def _gather(client: redis.asyncio.Redis, batch: Batch, expire: Expire) -> None:
    users = iter(batch.items())

    async def work() -> None:
        for key, value in users:
            await client.set(key, value, **expire)

    try:
        async with asyncio.TaskGroup() as workers:  # unlike gather, it ends the others when one fails
            for _ in range(min(_AT_ONCE, client.connection_pool.max_connections, len(batch))):
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
    (sent, replies), pool = _packed(batch, expire), client.connection_pool
    connection = pool.get_connection()

    def exchange() -> None:
        connection.send_packed_command([sent])
        for _ in range(replies):
            connection.read_response()

    try:
        connection.retry.call_with_retry(exchange, lambda _: connection.disconnect())
    except BaseException:
        connection.disconnect()  # replies still on their way must never reach the next caller
        raise
    finally:
        pool.release(connection)


async def _bulk_async(client: redis.asyncio.Redis, batch: Batch, expire: Expire) -> None:
    (sent, replies), pool = _packed(batch, expire), client.connection_pool
    connection = await pool.get_connection()

    async def exchange() -> None:
        await connection.send_packed_command([sent])
        for _ in range(replies):
            await connection.read_response()

    try:
        await connection.retry.call_with_retry(exchange, lambda _: connection.disconnect())
    except BaseException:
        await connection.disconnect(nowait=True)  # replies still on their way must never reach the next caller
        raise
    finally:
        await pool.release(connection)


_METHODS = {"one_by_one": _one_by_one, "threads": _threads, "pipeline": _pipeline, "bulk": _bulk}
_ASYNC_METHODS = {"one_by_one": _one_by_one_async, "gather": _gather, "pipeline": _pipeline_async, "bulk": _bulk_async}
_BATCHED = ("pipeline", "bulk")  # a round trip a batch, the others one a user


def _packed(batch: Batch, expire: Expire) -> tuple[bytes, int]:
    """Return a batch as it goes over the wire, and how many replies it gets: one MSET, or a SET each with a ttl.

    Joined by hand because the client packs each command by itself, in ten times the time; format: RESP,
    https://redis.io/docs/latest/develop/reference/protocol-spec/.
    """
    users = [f"${len(key.encode())}\r\n{key}\r\n${len(value)}\r\n{value}\r\n" for key, value in batch.items()]
    if not expire:
        return f"*{1 + 2 * len(users)}\r\n$4\r\nMSET\r\n{''.join(users)}".encode(), 1
    ((option, amount),) = expire.items()
    head, tail = "*5\r\n$3\r\nSET\r\n", f"$2\r\n{option}\r\n${len(str(amount))}\r\n{amount}\r\n"
    return "".join([head + user + tail for user in users]).encode(), len(users)


def _users(count: int, id_length: int, seed: int | None) -> Iterator[tuple[str, str]]:
    draw, letters, at = random.Random(seed), "", 0
    for number in range(1, count + 1):
        while len(letters) < at + id_length:  # blocks of bytes: 3 times as fast as choices(), same stream at any size
            letters, at = letters[at:] + draw.randbytes(4096).translate(_TABLE, _UNFAIR).decode(), 0
        yield f"user-{number}", letters[at : at + id_length]
        at += id_length


def _batches(count: int, batch_size: int, prefix: str, seed: int | None) -> Iterator[Batch]:
    _check.whole("batch_size", batch_size, least=1)
    users = generate_users(count, seed=seed)
    _check.identity("prefix with id", _check.text("prefix", prefix) + f"user-{count}")
    return iter(lambda: {prefix + id: value for id, value in islice(users, batch_size)}, {})


def _expire(ttl: float | None) -> Expire:
    """Return the options of SET for a ttl: whole seconds as EX, fractional ones as PX."""
    if ttl is None:
        return {}
    whole = _check.number("ttl", ttl, above=0) % 1 == 0
    return {"ex": int(ttl)} if whole else {"px": max(1, round(ttl * 1000))}


def _check_client(client: object, name: str) -> None:
    """Refuse what is no client of this kind, and pipelines, which are clients that would only queue the writes."""
    kinds = {"seed": redis.Redis, "seed_async": redis.asyncio.Redis}
    right = [name for name, kind in kinds.items() if isinstance(client, kind)]
    if right != [name] or isinstance(client, (redis.client.Pipeline, redis.asyncio.client.Pipeline)):
        takes = "a redis.Redis" if name == "seed" else "a redis.asyncio.Redis"
        hint = f": {right[0]}() takes that" if right and right != [name] else ""
        raise TypeError(
            f"client of {name}() must be {takes}, not a {type(client).__module__}.{type(client).__name__}{hint}"
        )


@contextmanager
def _counting(
    count: int, method: str, progress: bool
) -> Iterator[tuple[Callable[[int], None], Callable[[], SeedReport]]]:
    """Yield what counts users as written and what reports the count; the report goes with whatever ends it early."""
    bar = None
    if _check.choice("progress", progress, (False, True)):
        from tqdm.auto import tqdm

        bar = tqdm(total=count, unit=" users")
    written, batches, start = 0, 0, time.perf_counter()

    def wrote(users: int) -> None:
        nonlocal written, batches
        written, batches = written + users, batches + 1
        if bar is not None:
            bar.update(users)

    def report() -> SeedReport:
        round_trips = batches if method in _BATCHED else written
        return SeedReport(count, written, time.perf_counter() - start, round_trips, method)

    try:
        yield wrote, report
    except (redis.RedisError, OSError) as error:
        cause = f"{type(error).__name__}: {error}"
        message = f"{written} of {count} users were written when Redis failed; seeding again completes them. {cause}"
        raise SeedError(message, report()) from error
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        stop.report = report()
        stop.add_note(f"{written} of {count} users were written; seeding again completes them.")
        raise
    finally:
        if bar is not None:
            bar.close()
