"""Cache-aside that holds: one round trip for a hit, one load for a miss, no stale value left, Redis never in the way.

A value is JSON under its own key; `null` says that the id is known to be absent. While a value is being loaded its key
holds ``lease:<token>`` instead, and only the holder of that lease may store: the lease of Nishtala et al., "Scaling
Memcache at Facebook", NSDI 2013. The two classes stand side by side and read alike; what they do on a miss, on a
failure and for many ids is written once, in `cachelab.steps`.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import Any

import redis
import redis.asyncio

from cachelab.connections import UNTIL
from cachelab.flights import Contact, Local, Slots
from cachelab.stats import Stats
from cachelab.steps import Cache
from cachelab.values import FAILED, Mark, decode, encode_all

__all__ = ["AsyncCacheAside", "CacheAside", "Stats"]


class CacheAside(Cache):
    """Read through a cache: `get` returns the cached value, or loads it once and caches it.

    client: a redis.Redis, best from `connect`, whose timeouts keep the promise that Redis adds at most half a second.
    load: a function of an id that returns a JSON-able value, or None for an id that does not exist; it may read other
    ids from the cache, but would wait a lease for its own. load_many: one of a list of ids that returns a mapping; ids
    that it leaves out do not exist. ttl: seconds a value lives, drawn from [ttl * (1 - jitter), ttl]. missing_ttl:
    seconds that absence is remembered, None for not at all. prefix: what every key starts with. lease: seconds that a
    load may take before others stop waiting for it. max_loads: loads that run at once. max_value_bytes: longer JSON is
    served and not cached. Making a cache does no I/O.
    """

    _event = threading.Event

    def __init__(self, client: redis.Redis, *args, **kwargs):
        super().__init__(_client(client, redis.Redis, "connect"), *args, **kwargs)

    def get(self, id: str) -> Any:
        """Return the value of id, None if it does not exist; whatever ``load`` raises is raised here."""
        key, contact = self._key(id), Contact()
        if self._pending:
            self._run(self._settle(contact, [id]))
        value = decode(self._ask(contact, self._read, key))
        if isinstance(value, Mark):
            self._count("misses")
            return self._run(self._fetch([id], contact))[id]
        self._count("hits")
        return value

    def get_many(self, ids: Iterable[str]) -> dict[str, Any]:
        """Return {id: value or None}: one round trip for hits; for misses one to lease, one load_many, one to store."""
        return self._run(self._get_many(ids))

    def warm(self, ids: Iterable[str]) -> int:
        """Read ids in batches, which loads and caches what is missing; return how many of them exist."""
        return self._run(self._warm(ids))

    def invalidate(self, id: str) -> None:
        """Delete what is cached of id, after its database row has changed.

        Raises InvalidationPending if Redis cannot be reached: this process then keeps the id, and serves it from the
        database until the delete, sent again with the next contact, has gone through or what it was for has expired.
        Other processes may serve the old value until then, at most for ttl.
        """
        self._run(self._invalidate(id))

    def _ask(self, contact: Contact, command: Callable, *args) -> Any:
        """Return what Redis replies to a command, or FAILED."""
        if contact.left <= 0 or not (contact.probe or self._breaker.allows()):
            return FAILED
        began = monotonic()
        limit = UNTIL.set(began + contact.left)
        try:
            reply = command(*args)
        except Exception as error:  # whatever nonsense the other end talks, the caller gets a value
            return self._failed(contact, error)
        finally:
            UNTIL.reset(limit)
        self._breaker.succeeded()
        contact.left -= monotonic() - began
        return reply

    def _load(self, slots: Slots, batches: list[list[str]]) -> dict[str, str | Exception]:
        """Return, for each id, what its load gave as JSON, or what it raised."""
        outcomes = [self._load_batch(slots, ids) for ids in batches]
        return {id: outcome for batch in outcomes for id, outcome in batch.items()}

    def _load_batch(self, slots: Slots, ids: list[str]) -> dict[str, str | Exception]:
        with slots:
            self._count("loads")
            try:
                values = {ids[0]: self._origin(ids[0])} if len(ids) == 1 else self._origin_many(ids)
                return encode_all(ids, values)
            except Exception as error:
                return dict.fromkeys(ids, error)

    def _run(self, steps: Generator) -> Any:
        """Do what each step asks for, and send it the outcome."""
        reply = error = None
        while True:
            try:
                step, *args = steps.throw(error) if error else steps.send(reply)
            except StopIteration as end:
                return end.value
            try:
                reply, error = step(*args), None
            except BaseException as raised:
                error = raised

    def _apart(self, steps: Generator) -> None:
        self._run(steps)

    def _at_once(self) -> int:
        return 1

    def _here(self) -> Local:
        process = os.getpid()
        with self._lock:
            if process not in self._locals:  # in a forked child nobody brings its parent's flights down
                self._locals = {process: Local(partial(threading.BoundedSemaphore, self._max_loads))}
            return self._locals[process]

    def _wait(self, event: threading.Event, seconds: float) -> None:
        event.wait(seconds)

    def _sleep(self, seconds: float) -> None:
        sleep(seconds)


class AsyncCacheAside(Cache):
    """The asyncio twin of `CacheAside`, with the same arguments: ``load`` and ``load_many`` are awaited.

    One object may serve several event loops; max_loads is then for each of them. A load goes on when the reader that
    began it is cancelled, for the sake of those that wait for it.
    """

    _event = asyncio.Event

    def __init__(self, client: redis.asyncio.Redis, *args, **kwargs):
        super().__init__(_client(client, redis.asyncio.Redis, "connect_async"), *args, **kwargs)
        self._origin = _awaiting("load", self._origin)
        self._origin_many = self._origin_many and _awaiting("load_many", self._origin_many)
        self._tasks: set[asyncio.Task] = set()

    async def get(self, id: str) -> Any:
        """Return the value of id, None if it does not exist; whatever ``load`` raises is raised here."""
        key, contact = self._key(id), Contact()
        if self._pending:
            await self._run(self._settle(contact, [id]))
        value = decode(await self._ask(contact, self._read, key))
        if isinstance(value, Mark):
            self._count("misses")
            return (await self._run(self._fetch([id], contact)))[id]
        self._count("hits")
        return value

    async def get_many(self, ids: Iterable[str]) -> dict[str, Any]:
        """Return {id: value or None}: one round trip for hits; for misses one to lease, one load_many, one to store."""
        return await self._run(self._get_many(ids))

    async def warm(self, ids: Iterable[str]) -> int:
        """Read ids in batches, which loads and caches what is missing; return how many of them exist."""
        return await self._run(self._warm(ids))

    async def invalidate(self, id: str) -> None:
        """Delete what is cached of id, after its database row has changed; raises as `CacheAside.invalidate` does."""
        await self._run(self._invalidate(id))

    async def _ask(self, contact: Contact, command: Callable, *args) -> Any:
        """Return what Redis replies to a command, or FAILED."""
        if contact.left <= 0 or not (contact.probe or self._breaker.allows()):
            return FAILED
        began = monotonic()
        limit = UNTIL.set(began + contact.left)
        try:
            reply = await command(*args)
        except Exception as error:  # whatever nonsense the other end talks, the caller gets a value
            return self._failed(contact, error)
        finally:
            UNTIL.reset(limit)
        self._breaker.succeeded()
        contact.left -= monotonic() - began
        return reply

    async def _load(self, slots: Slots, batches: list[list[str]]) -> dict[str, str | Exception]:
        """Return, for each id, what its load gave as JSON, or what it raised."""
        outcomes = await asyncio.gather(*(self._load_batch(slots, ids) for ids in batches))
        return {id: outcome for batch in outcomes for id, outcome in batch.items()}

    async def _load_batch(self, slots: Slots, ids: list[str]) -> dict[str, str | Exception]:
        async with slots:
            self._count("loads")
            try:
                values = {ids[0]: await self._origin(ids[0])} if len(ids) == 1 else await self._origin_many(ids)
                return encode_all(ids, values)
            except Exception as error:
                return dict.fromkeys(ids, error)

    async def _run(self, steps: Generator) -> Any:
        """Do what each step asks for, and send it the outcome."""
        reply = error = None
        while True:
            try:
                step, *args = steps.throw(error) if error else steps.send(reply)
            except StopIteration as end:
                return end.value
            try:
                reply, error = await step(*args), None
            except BaseException as raised:
                error = raised

    async def _apart(self, steps: Generator) -> None:
        task = asyncio.create_task(self._run(steps))
        self._tasks.add(task)  # the loop itself keeps no strong reference
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    def _at_once(self) -> int:
        return self._max_loads

    def _here(self) -> Local:
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._locals:
                for closed in [known for known in self._locals if known.is_closed()]:
                    del self._locals[closed]
                self._locals[loop] = Local(partial(asyncio.BoundedSemaphore, self._max_loads))
            return self._locals[loop]

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _client(client: Any, kind: type, maker: str) -> Any:
    if not isinstance(client, kind):
        name = f"{type(client).__module__}.{type(client).__name__}"
        raise TypeError(f"client must be what {maker}() returns, a {kind.__module__}.{kind.__name__}, not a {name}")
    return client


def _awaiting(name: str, function: Callable) -> Callable:
    async def load(ids: Any) -> Any:
        outcome = function(ids)
        if not isinstance(outcome, Awaitable):
            raise TypeError(f"{name} must be an async function: CacheAside is the cache that calls {function!r}")
        return await outcome

    return load
