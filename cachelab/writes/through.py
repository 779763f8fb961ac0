"""Write to the database and then to the cache: one row at a time, committed when `put` returns.

The row is committed first, always. What differs is what the cache does meanwhile, and so what a
process leaves that dies between the two: `WriteAround` the old value, for its ttl at most;
`WriteThrough` nothing that could be read. It puts a lease of its own in the key before it commits,
as a loader does (`cachelab.cache.leases`): the old value is gone, readers wait for a lease that is
young and load by themselves when it is not.
"""

import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from cachelab.cache import AsyncCacheAside, CacheAside
from cachelab.cache.codec import LEASE, NOTHING, Failure, encode
from cachelab.cache.core import Core
from cachelab.cache.flights import Awaiting, Blocking, to_its_end
from cachelab.cache.gate import Budget
from cachelab.cache.leases import LIFE
from cachelab.errors import InvalidationPending
from cachelab.writes.ahead import AsyncRefreshAhead, RefreshAhead

WRITES = f"{LEASE}write:"  # and the tokens of those who write, with a + for each that came or went

# Put a writer's token in the key, in place of what stands there, but beside other writers' whose
# lease is young. Who comes later does not make it younger: a reader waits for the first.
BEGIN = f"""
local held = redis.call('GET', KEYS[1])
if held and held:sub(1, {len(WRITES)}) == '{WRITES}' then
  if held:find(ARGV[1], 1, true) then return 1 end
  if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[3]) then
    redis.call('SET', KEYS[1], held .. '+' .. ARGV[1], 'KEEPTTL')
    return 1
  end
end
redis.call('SET', KEYS[1], '{WRITES}' .. ARGV[1], 'PX', ARGV[2])
return 1
"""

# 1: the value, or nothing for an empty one, is where the token was, alone from first to last. 0:
# others have written, loaded or deleted meanwhile, and whose value is the newest nobody can tell.
# It is nobody's then; the lease of those who still write stays, for they may die.
END = f"""
local held = redis.call('GET', KEYS[1]) or ''
if ARGV[2] ~= '' then
  if held == ARGV[2] then return 1 end
  if held == '{WRITES}' .. ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 1
  end
end
if held:sub(1, {len(WRITES)}) == '{WRITES}' then
  local first, last = held:find(ARGV[1], 1, true)
  local rest = first and held:sub(1, first - 1) .. held:sub(last + 1) or held .. '+'
  if rest:find('%x', {len(WRITES) + 1}) then
    redis.call('SET', KEYS[1], rest, 'KEEPTTL')
    return 0
  end
end
redis.call('DEL', KEYS[1])
return 0
"""


class WriteThrough:
    """Write a row, then its value into the cache: who reads after a put hits.

    Writers of one key, in any number of processes, may commit and store in any order: when they
    have ended, the cache has what the database has, or nothing. Of writers that overlap none
    stores, since the order of their commits is the database's alone to know.

    While a put is under way, readers of its id wait for it, for `lease` seconds of the cache at
    most; then they load. A process that dies in the middle leaves its lease: readers wait as long
    for it, and never read the old value, if the commit ended within that time too.

    Args:
        cache: A CacheAside or a RefreshAhead, whose load gives what was put.
        store: A function of an id and a value that commits one row before it returns; None as the
            value stands for a row to delete. If it raises, the row must be as it was, or the
            outcome unknown: nothing is cached.

    Raises:
        TypeError: An argument is of the wrong kind.
    """

    def __init__(
        self, cache: CacheAside[Any] | RefreshAhead[Any], store: Callable[[str, Any], object]
    ):
        self._writer = _Writer(_core_of(cache, Blocking), _plain(store))

    def put(self, id: str, value: Any) -> None:
        """Commit a row, then cache its value. Redis adds half a second to either step at most.

        Raises:
            TypeError: The value is not JSON; nothing was written.
            ValueError: The id is out of its range, or the value would lose a part; likewise.
            InvalidationPending: The row is committed, and Redis did not take the value: see
                `CacheAside.invalidate` for what happens next.
            Exception: Whatever store raises. The id is not cached then.
        """
        to_its_end(self._writer.through(id, value))

    def delete(self, id: str) -> None:
        """Have store delete a row, by the value None, then cache that there is none; see `put`."""
        self.put(id, None)


class AsyncWriteThrough:
    """The asyncio twin of `WriteThrough`: store is awaited.

    A put goes on when the task that began it is cancelled: the row may be committed by then.

    Args:
        cache: An AsyncCacheAside or an AsyncRefreshAhead.
        store: An async function of an id and a value that commits one row before it returns.

    Raises:
        TypeError: An argument is of the wrong kind.
    """

    def __init__(
        self,
        cache: AsyncCacheAside[Any] | AsyncRefreshAhead[Any],
        store: Callable[[str, Any], Awaitable[object]],
    ):
        self._writer = _Writer(_core_of(cache, Awaiting), _awaited(store))

    async def put(self, id: str, value: Any) -> None:
        """Commit a row, then cache its value; raises as `WriteThrough.put`."""
        await self._writer.through(id, value)

    async def delete(self, id: str) -> None:
        """Have store delete a row, by the value None, then cache that there is none."""
        await self.put(id, None)


class WriteAround:
    """Write a row, then delete what is cached of it: the next read loads.

    Writers of one key may commit and delete in any order: a load that began before a delete is not
    stored, so when they have ended, the cache has what the database has, or nothing. Readers hit on
    the old value until the delete. A process that dies between commit and delete leaves it, for the
    ttl of the cache at most.

    Args:
        cache: A CacheAside or a RefreshAhead.
        store: A function of an id and a value that commits one row before it returns; None as the
            value stands for a row to delete.

    Raises:
        TypeError: An argument is of the wrong kind.
    """

    def __init__(
        self, cache: CacheAside[Any] | RefreshAhead[Any], store: Callable[[str, Any], object]
    ):
        self._writer = _Writer(_core_of(cache, Blocking), _plain(store))

    def put(self, id: str, value: Any) -> None:
        """Commit a row, then delete what is cached of it.

        Raises:
            ValueError: The id is out of its range; nothing was written.
            InvalidationPending: The row is committed, and Redis did not take the delete: see
                `CacheAside.invalidate` for what happens next.
            Exception: Whatever store raises; the delete is done all the same.
        """
        to_its_end(self._writer.around(id, value))

    def delete(self, id: str) -> None:
        """Have store delete a row, by the value None, then delete what is cached; see `put`."""
        self.put(id, None)


class AsyncWriteAround:
    """The asyncio twin of `WriteAround`: store is awaited.

    A put goes on when the task that began it is cancelled.

    Args:
        cache: An AsyncCacheAside or an AsyncRefreshAhead.
        store: An async function of an id and a value that commits one row before it returns.

    Raises:
        TypeError: An argument is of the wrong kind.
    """

    def __init__(
        self,
        cache: AsyncCacheAside[Any] | AsyncRefreshAhead[Any],
        store: Callable[[str, Any], Awaitable[object]],
    ):
        self._writer = _Writer(_core_of(cache, Awaiting), _awaited(store))

    async def put(self, id: str, value: Any) -> None:
        """Commit a row, then delete what is cached of it; raises as `WriteAround.put`."""
        await self._writer.around(id, value)

    async def delete(self, id: str) -> None:
        """Have store delete a row, by the value None, then delete what is cached."""
        await self.put(id, None)


class _Writer:
    """What the four classes do, written once as the core is: coroutines that may block."""

    def __init__(self, core: Core, store: Callable[[str, Any], Any]):
        self._core = core
        self._store = store

    async def through(self, id: str, value: Any) -> None:
        self._core.key(id)
        text = encode(id, value, "the value put for")
        await self._core.waiting.shielded(self._through(id, value, text), _nothing)

    async def around(self, id: str, value: Any) -> None:
        self._core.key(id)
        await self._core.waiting.shielded(self._around(id, value), _nothing)

    async def _through(self, id: str, value: Any, text: str) -> None:
        core, token, budget = self._core, uuid.uuid4().hex, Budget()
        leased = (await core.ask(budget, self._begin, {id: (token,)}))[id] == 1
        outcome = await self._commit(id, value, leased)
        core.overtake(id)
        settings = core.settings_of(id, text)
        entry = NOTHING if isinstance(outcome, Failure) else core.form.entry(text, settings)
        reply = (await core.ask(budget, self._end, {id: (token, *entry)}))[id]
        await self._settle(id, outcome, is_cached=reply in (0, 1))

    async def _around(self, id: str, value: Any) -> None:
        outcome = await self._commit(id, value, leased=False)
        await self._settle(id, outcome, is_cached=False)

    async def _commit(self, id: str, value: Any, leased: bool) -> Any:
        """Return a Failure if store raises; an interrupt passes, and leaves no old value.

        Whether the row is committed then, or yet will be, nobody knows: a lease stays, as it does
        after a crash.
        """
        try:
            return await self._core.waiting.load(partial(self._store, id), value)
        except BaseException:
            if not leased:
                with suppress(InvalidationPending):
                    await self._core.invalidate(id)
            raise

    async def _settle(self, id: str, outcome: Any, is_cached: bool) -> None:
        """See to it that nothing old is read, and raise what store raised."""
        failed = isinstance(outcome, Failure)
        try:
            if not is_cached:
                await self._core.invalidate(id)
        except InvalidationPending as pending:
            if not failed:
                raise InvalidationPending(f"The row of {id!r} is committed. {pending}") from None
            outcome.error.add_note(str(pending))
        if failed:
            raise outcome.error

    def _begin(self, tokens: Mapping[str, tuple[str]]) -> Any:
        leases = self._core.leases
        return leases.run(
            BEGIN, ((id, (token, LIFE, leases.old)) for id, (token,) in tokens.items())
        )

    def _end(self, entries: Mapping[str, tuple[str, str, str]]) -> Any:
        return self._core.leases.run(END, entries.items())


def _nothing() -> None:
    """Do nothing when a put has ended."""


def _core_of(cache: Any, waiting: type) -> Core:
    core = getattr(cache, "core", None)
    if not isinstance(core, Core) or not isinstance(core.waiting, waiting):
        kinds = "a CacheAside or a RefreshAhead"
        if waiting is Awaiting:
            kinds = "an AsyncCacheAside or an AsyncRefreshAhead"
        raise TypeError(f"cache must be {kinds}, not {cache!r}")
    return core


def _plain(store: Any) -> Callable[[str, Any], Any]:
    if not callable(store) or inspect.iscoroutinefunction(store):
        raise TypeError(
            f"store must be a plain function of an id and a value, not {store!r}: an async one is "
            "for AsyncWriteThrough and AsyncWriteAround"
        )
    plain: Callable[[str, Any], Any] = store
    return plain


def _awaited(store: Any) -> Callable[[str, Any], Any]:
    if not callable(store):
        raise TypeError(f"store must be an async function of an id and a value, not {store!r}")

    async def stored(id: str, value: Any) -> None:
        written = store(id, value)
        if not isinstance(written, Awaitable):
            raise TypeError(
                f"store must be an async function: WriteThrough and WriteAround call {store!r}"
            )
        await written

    return stored
