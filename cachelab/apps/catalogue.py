"""A catalogue: each product is a hash, of which some fields can be read, changed or dropped alone.

A hash holds each field as JSON at `:name`. Beside them `whole` says that no field is missing, or
with "0" that there is no such product, and `lease` holds the token of a load or of an update that
is under way. It means what it means in `cachelab.cache.leases`, here for all fields: whatever
drops one takes the lease away, and what was loaded is stored only where its token still stands.

Products of a tag are found by a set of ids that each load adds to, which may lie on another node.
So that no load slips through while a tag is dropped, that counts `generation` up first: a load
notes it before it asks the database and again when its id is in the sets, and where the two
differ it stores nothing.
"""

import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from time import monotonic
from typing import Any

import redis
import redis.asyncio

from cachelab import _check
from cachelab.cache.codec import (
    Failure,
    Mark,
    encode,
    from_json,
    milliseconds,
    raise_first,
    value_of,
)
from cachelab.cache.flights import Awaiting, Blocking, Flight, Waiting, to_its_end
from cachelab.cache.gate import Budget, Client, Gates
from cachelab.cache.pending import PendingDeletes
from cachelab.cache.settings import LEASE_KEPT, MOST_LOADS
from cachelab.cache.stats import Counts, Stats
from cachelab.clients import check_client
from cachelab.clients.shards import exchange, exchange_async, is_cluster
from cachelab.errors import InvalidationPending, LoadsBusy, RedisUnavailable

Product = dict[str, Any]

KEPT = str(round(1000 * LEASE_KEPT))  # milliseconds
UPDATE = 2500  # milliseconds after which a lease of an update may be taken from who is dead
BATCH = 500  # products at a time

# What is there if that is whole; else the token to store with, '' while somebody is updating.
OPEN = """
if redis.call('HEXISTS', KEYS[1], 'whole') == 1 then return redis.call('HGETALL', KEYS[1]) end
local lease = redis.call('HGET', KEYS[1], 'lease')
local began = lease and lease:match('^update:(%d+)')
if began then
  local time = redis.call('TIME')
  if time[1] * 1000 + time[2] / 1000 - began < tonumber(ARGV[3]) then return '' end
end
if not lease or began then
  lease = ARGV[1]
  redis.call('HSET', KEYS[1], 'lease', lease)
end
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return lease
"""

FILL = """
if redis.call('HGET', KEYS[1], 'lease') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
for at = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""

# The lease that an update puts in place of any other, and whether nothing else is missing.
BEGIN = """
local whole = redis.call('HGET', KEYS[1], 'whole')
for at = 3, #ARGV do redis.call('HDEL', KEYS[1], ARGV[at]) end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local lease = 'update:' .. now .. ':' .. ARGV[1]
redis.call('HDEL', KEYS[1], 'whole')
redis.call('HSET', KEYS[1], 'lease', lease)
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {lease, whole == '1' and 1 or 0}
"""

# The new fields where the update's lease stands; else they are dropped, and with them any lease.
END = """
local is_mine = redis.call('HGET', KEYS[1], 'lease') == ARGV[1]
redis.call('HDEL', KEYS[1], 'lease', 'whole')
for at = 4, #ARGV, 2 do
  if is_mine then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  else
    redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
if is_mine and ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'whole', '1') end
if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return is_mine and 1 or 0
"""

DROP = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 0 end
if #ARGV == 0 then return redis.call('DEL', KEYS[1]) end
return redis.call('HDEL', KEYS[1], 'lease', 'whole', unpack(ARGV))
"""

JOIN = """
redis.call('SADD', KEYS[1], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

COUNT = """
redis.call('INCR', KEYS[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""


class _Core:
    """What both classes do: coroutines, which never suspend over a client that blocks."""

    def __init__(
        self,
        client: Client,
        waiting: Waiting,
        load: Callable[[str], Any],
        store: Callable[[str, Product], Any] | None,
        tags: Callable[[Product], Iterable[str]] | None,
        ttl: float,
        jitter: float,
        missing_ttl: float,
        prefix: str,
        max_wait: float,
    ):
        for name, function in {"load": load, "store": store, "tags": tags}.items():
            if not callable(function) and (function is not None or name == "load"):
                raise TypeError(f"{name} must be a function, not {function!r:.80}")
        self._client: Any = client
        self._waiting: Any = waiting
        self._load = load
        self._store = store
        self._tags = tags
        self._ttl = _check.number("ttl", ttl, above=0)
        self._jitter = _check.number("jitter", jitter, high=1)
        self._missing_ttl = _check.number("missing_ttl", missing_ttl, above=0)
        self._prefix = _check.text("prefix", prefix)
        self._products = f"{prefix}id:"
        self._generation = f"{prefix}generation"
        self._max_wait = _check.number("max_wait", max_wait, above=0, high=_check.LONGEST_WAIT)
        self._counts = Counts(f"The catalogue with prefix {prefix!r}")
        self._gates = Gates(client, self._counts, self._products)
        self._pending = PendingDeletes(max(self._ttl, self._missing_ttl) + LEASE_KEPT)

    @property
    def stats(self) -> Stats:
        """The counts so far, as a `Stats` that does not change any more."""
        return self._counts.stats(self._gates.state)

    async def get(self, id: str, fields: Iterable[str] | None = None) -> Product | None:
        """Return a product, or some fields of it: one command, one load where one is missing.

        Args:
            id: Which product.
            fields: Their names; None for all.

        Returns:
            The fields that it has, by name; None if there is no such product. Without Redis they
            come from the database.

        Raises:
            LoadsBusy: There was no room to load, or another's load did not end, within max_wait.
            Exception: Whatever load raises.
        """
        key = self._key(id)
        names = None if fields is None else _names("fields", fields)
        budget = Budget()
        if await self._is_pending(budget, id):
            self._counts.misses.one()
            return _some(await self._loaded(id, budget), names)
        if names is None:
            reply = await self._ask(budget, key, "HGETALL", key)
            found = _product(reply)
        else:
            words = ["HMGET", key, "whole", *(f":{name}" for name in names)]
            found = _fields(await self._ask(budget, key, *words), names)
        if not isinstance(found, Mark):
            self._counts.hits.one()
            return found
        self._counts.misses.one()
        if found is Mark.CORRUPT:
            self._counts.failure("BrokenValue")
            await self._script(budget, DROP, key)
        return _some(await self._loaded(id, budget), names)

    async def get_many(self, ids: Iterable[str]) -> dict[str, Product | None]:
        """Return {id: product or None}: one round trip for 500 hits, one load for each miss.

        Raises as `get` does, when everything else has been loaded.
        """
        asked = list(dict.fromkeys(_check.several("ids", ids)))
        for id in asked:
            self._key(id)
        values: dict[str, Product | None] = dict.fromkeys(asked)
        failures: dict[str, Failure] = {}
        for at in range(0, len(asked), BATCH):
            batch, budget = asked[at : at + BATCH], Budget()
            if self._pending:
                await self._send(budget, batch)
            missing = []
            for id, reply in (await self._replies(budget, self._read_many, batch)).items():
                found = _product(reply)
                if isinstance(found, Mark) or id in self._pending:
                    missing.append(id)
                else:
                    self._counts.hits.one()
                    values[id] = found
            self._counts.misses.add(len(missing))
            loads = (self._attempted(id, budget.again()) for id in missing)
            for id, outcome in zip(missing, await self._waiting.each(loads), strict=True):
                if isinstance(outcome, Failure):
                    failures[id] = outcome
                else:
                    values[id] = outcome
        raise_first(failures)
        return values

    async def update(self, id: str, changes: Mapping[str, Any]) -> None:
        """Change some fields in the database, then in the cache; the others stay cached.

        While it goes on, reads of these fields ask the database. Of two updates at once the cache
        keeps what neither has overtaken, and drops the rest. Where this process dies after the
        commit, amid another update of the field, the cache may keep the other's value for ttl.

        Args:
            id: Which product.
            changes: Names to values that JSON can hold; store gets them as they are.

        Raises:
            TypeError: There is no store, or JSON cannot hold a value; nothing has changed.
            InvalidationPending: The row is committed, but Redis cannot be told: see `invalidate`.
            Exception: Whatever store raises; the cache asks the database again.
        """
        key = self._key(id)
        if self._store is None:
            raise TypeError(f"store must be a function for update({id!r}) to call, not None")
        texts = _texts(id, changes)
        if not texts:
            raise ValueError(f"changes must have at least one field for update({id!r}), not none")
        store = partial(self._store, id)
        budget = Budget(probe=True)
        began = await self._script(budget, BEGIN, key, uuid.uuid4().hex, KEPT, *texts)
        outcome = await self._waiting.load(store, dict(changes))
        if isinstance(outcome, Failure):
            await self.invalidate(id, changes)
            value_of(outcome)
        if not isinstance(began, list) or id in self._pending:
            await self.invalidate(id, changes)
            return
        lease, was_whole = began
        words = [word for pair in texts.items() for word in pair]
        ttl = str(milliseconds(self._ttl))
        end = Budget(probe=True)
        if isinstance(
            await self._script(end, END, key, lease.decode(), ttl, str(was_whole), *words), Mark
        ):
            self._keep(id)

    async def invalidate(self, id: str, fields: Iterable[str] = ()) -> None:
        """Drop a product, or some fields of it, after its row has changed.

        A read that begins after it has returned never gives an older value; a load that began
        before is not stored.

        Args:
            id: Which product.
            fields: What to drop; none for all.

        Raises:
            InvalidationPending: Redis cannot be reached, or refuses. The drop is kept and sent
                again; until then this process has the product from the database, and others may
                have the old value for ttl at most.
        """
        key = self._key(id)
        names = [f":{name}" for name in _names("fields", fields)]
        since = monotonic()
        reply = await self._script(Budget(probe=True), DROP, key, *names)
        if isinstance(reply, Mark):
            self._keep(id, since)

    async def invalidate_tag(self, tag: str) -> int:
        """Drop all products of a tag, after their rows have changed; return how many there were.

        It may be repeated, and must be where it raises.

        Raises:
            RedisUnavailable: Redis cannot be reached: nothing, or not all, has been dropped.
        """
        key = self._tag(tag)
        counted = await self._script(Budget(probe=True), COUNT, self._generation, KEPT)
        members = await self._ask(Budget(probe=True), key, "SMEMBERS", key)
        if isinstance(counted, Mark) or isinstance(members, Mark):
            raise RedisUnavailable(f"the tag {tag!r} was not dropped: repeat it when Redis is back")
        ids = [id.decode() for id in members]
        left = set(ids)
        for at in range(0, len(ids), BATCH):
            budget = Budget(probe=True)
            left -= await self._dropped(budget, ids[at : at + BATCH])
        if left:
            raise RedisUnavailable(
                f"{len(left)} of {len(ids)} products of the tag {tag!r} were not dropped: "
                "repeat it when Redis is back"
            )
        return len(ids)

    async def _attempted(self, id: str, budget: Budget) -> Product | None | Failure:
        try:
            return await self._loaded(id, budget)
        except Exception as error:
            return Failure(error)

    async def _loaded(self, id: str, budget: Budget) -> Product | None:
        """Load a product once for all who ask here; return it."""
        while True:
            group = self._waiting.group()
            mine, theirs = group.join([id])
            if mine:
                try:
                    product: Product | None = value_of(await self._lead(mine[id], budget))
                    return product
                finally:
                    group.land_all(mine.values())
            self._counts.waits.one()
            flight = theirs[id]
            if not await self._waiting.follow(flight, self._max_wait):
                raise self._busy(id, "another read's load of it has not ended")
            if flight.outcome is not None and budget.started <= flight.as_of:
                if isinstance(flight.outcome, Failure):
                    return value_of(flight.outcome.of_reader())  # type: ignore[no-any-return]
                return value_of(flight.outcome)  # type: ignore[no-any-return]

    async def _lead(self, flight: Flight, budget: Budget) -> str | Failure:
        """Load a product, store it where nothing was dropped meanwhile, tell who waits."""
        group, id = self._waiting.group(), flight.id
        room, place, began = group.room(()), object(), monotonic()
        try:
            if not await room.entered(place, self._max_wait):
                raise self._busy(id, "there was no room for its load")
            began = monotonic()
            before, token = b"", b""
            if not self._pending:
                before = await self._generation_now(budget)
                token = await self._script(
                    budget, OPEN, self._key(id), f"load:{uuid.uuid4().hex}", KEPT, str(UPDATE)
                )
            if isinstance(token, list) and not isinstance(found := _product(token), Mark):
                text = encode(id, found)
                group.land(flight, text, began)
                return text
            self._counts.loads.one()
            outcome = await self._waiting.load(self._load, id)
        finally:
            room.leave(place)
        sent = monotonic()
        text, words = _encoded(id, outcome)
        is_stored = False
        if isinstance(token, bytes) and token and not isinstance(text, Failure):
            is_stored = await self._filled(budget, id, token, before, from_json(text), words)
        group.land(flight, text, sent if is_stored else began)
        return text

    async def _filled(
        self,
        budget: Budget,
        id: str,
        token: bytes,
        before: Any,
        product: Product | None,
        words: list[str],
    ) -> bool:
        """Store what was loaded, unless something was dropped meanwhile; say whether it is."""
        if self._tags is not None and product is not None:
            life = str(milliseconds(self._ttl + LEASE_KEPT))
            for tag in _names("tags", self._tags(product)):
                if isinstance(await self._script(budget, JOIN, self._tag(tag), id, life), Mark):
                    return False
        if id in self._pending or await self._generation_now(budget) != before:
            self._counts.refused.one()
            return False
        ttl = self._missing_ttl if product is None else self._ttl
        left = str(milliseconds(ttl, 0.0 if product is None else self._jitter))
        reply = await self._script(budget, FILL, self._key(id), token.decode(), left, *words)
        if reply == 0:
            self._counts.refused.one()
        return bool(reply == 1)

    async def _generation_now(self, budget: Budget) -> Any:
        if self._tags is None:
            return b""
        return await self._ask(budget, self._generation, "GET", self._generation)

    def _keep(self, id: str, since: float | None = None) -> None:
        self._pending.add(id, since)
        resend = partial(self._send, Budget(probe=True), [])
        self._waiting.resend(resend, lambda: bool(self._pending))
        raise InvalidationPending(
            f"Redis did not drop {id!r}: it is kept and sent again; its row is as it was committed"
        )

    async def _is_pending(self, budget: Budget, id: str) -> bool:
        if self._pending:
            await self._send(budget, [id])
        return id in self._pending

    async def _send(self, budget: Budget, ids: Iterable[str]) -> None:
        """Send drops that are pending, those of ids among the first."""
        due = self._pending.due(ids)
        gone = await self._dropped(budget.again(), due)
        self._pending.sent({id: due[id] for id in gone})

    async def _dropped(self, budget: Budget, ids: Collection[str]) -> set[str]:
        """Drop products; return those of which Redis says so."""
        replies = await self._replies(budget, self._drop_many, ids)
        return {id for id, reply in replies.items() if isinstance(reply, int)}

    async def _script(self, budget: Budget, script: str, key: str, *words: str) -> Any:
        return await self._ask(budget, key, "EVAL", script, "1", key, *words)

    async def _ask(self, budget: Budget, key: str, *words: str) -> Any:
        """Return what Redis replies, undecoded, or the Mark of why it did not."""
        command = partial(self._client.execute_command, NEVER_DECODE=True)
        return await self._waiting.call(self._gates.of(key), budget, command, *words)

    async def _replies(
        self, budget: Budget, command: Callable[..., Any], ids: Collection[str]
    ) -> dict[str, Any]:
        """Return what each id got, an error or a Mark included: a trip to each server with some."""
        if (gate := self._gates.only) is not None:
            came = {gate: (list(ids), await self._waiting.call(gate, budget, command, ids))}
        else:
            came = await self._waiting.call_each(self._gates, budget, command, ids)
        replies: dict[str, Any] = dict.fromkeys(ids, Mark.UNAVAILABLE)
        for answered, given in came.values():
            if isinstance(given, list) and len(given) == len(answered):
                replies.update(zip(answered, given, strict=True))
        return replies

    def _read_many(self, ids: Collection[str]) -> Any:
        return self._each([("HGETALL", self._products + id) for id in ids])

    def _drop_many(self, ids: Collection[str]) -> Any:
        return self._each([("EVAL", DROP, "1", self._products + id) for id in ids])

    def _each(self, commands: list[tuple[str, ...]]) -> Any:
        """Return the replies to commands whose last word is their key, or what awaits them."""
        if is_cluster(self._client):
            send = exchange_async if isinstance(self._waiting, Awaiting) else exchange
            return send(self._client, [(words[-1], words) for words in commands])
        pipeline = self._client.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words, NEVER_DECODE=True)
        return pipeline.execute(raise_on_error=False)

    def _key(self, id: str) -> str:
        return self._products + _check.identity("id", id)

    def _tag(self, tag: str) -> str:
        return f"{self._prefix}tag:{_check.identity('tag', tag)}"

    def _busy(self, id: str, why: str) -> LoadsBusy:
        return LoadsBusy(f"{id!r} was not loaded within {self._max_wait:g} s (max_wait): {why}")


class AsyncCatalogue(_Core):
    """Products in Redis, for asyncio: a cache of what the database knows.

    Args:
        client: What `connect_async` returns.
        load: An async function of an id that returns a mapping of names to values that JSON can
            hold, or None if there is no such product.
        store: An async function of an id and a mapping of what changes, which commits it.
        tags: A plain function of a product that returns its tags, by which many are dropped at
            once; a load is two round trips longer with it, and one more for each tag.
        ttl: Seconds that a value lives at most.
        jitter: A share of ttl: each product's is drawn uniformly from [ttl * (1 - jitter), ttl].
        missing_ttl: Seconds that absence is remembered.
        prefix: What every key starts with.
        max_loads: Loads that run at the same time; more of them queue.
        max_wait: Seconds that a read waits for room to load, or for another's load.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        load: Callable[[str], Awaitable[Mapping[str, Any] | None]],
        store: Callable[[str, Product], Awaitable[object]] | None = None,
        tags: Callable[[Product], Iterable[str]] | None = None,
        ttl: float = 300,
        jitter: float = 0.1,
        missing_ttl: float = 30,
        prefix: str = "product:",
        max_loads: int = 20,
        max_wait: float = 30,
    ):
        check_client(client, "async", "connect_async")
        waiting = Awaiting(_check.whole("max_loads", max_loads, least=1, most=MOST_LOADS))
        super().__init__(
            client, waiting, load, store, tags, ttl, jitter, missing_ttl, prefix, max_wait
        )


class Catalogue:
    """The twin of `AsyncCatalogue` that blocks, with plain functions and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        load: Callable[[str], Mapping[str, Any] | None],
        store: Callable[[str, Product], object] | None = None,
        tags: Callable[[Product], Iterable[str]] | None = None,
        ttl: float = 300,
        jitter: float = 0.1,
        missing_ttl: float = 30,
        prefix: str = "product:",
        max_loads: int = 20,
        max_wait: float = 30,
    ):
        check_client(client, "sync", "connect")
        waiting = Blocking(_check.whole("max_loads", max_loads, least=1, most=MOST_LOADS))
        self._core = _Core(
            client, waiting, load, store, tags, ttl, jitter, missing_ttl, prefix, max_wait
        )

    def get(self, id: str, fields: Iterable[str] | None = None) -> Product | None:
        """See `AsyncCatalogue.get`."""
        return to_its_end(self._core.get(id, fields))

    def get_many(self, ids: Iterable[str]) -> dict[str, Product | None]:
        """See `AsyncCatalogue.get_many`."""
        return to_its_end(self._core.get_many(ids))

    def update(self, id: str, changes: Mapping[str, Any]) -> None:
        """See `AsyncCatalogue.update`."""
        to_its_end(self._core.update(id, changes))

    def invalidate(self, id: str, fields: Iterable[str] = ()) -> None:
        """See `AsyncCatalogue.invalidate`."""
        to_its_end(self._core.invalidate(id, fields))

    def invalidate_tag(self, tag: str) -> int:
        """See `AsyncCatalogue.invalidate_tag`."""
        return to_its_end(self._core.invalidate_tag(tag))

    @property
    def stats(self) -> Stats:
        """The counts so far, as a `Stats` that does not change any more."""
        return self._core.stats


def _names(what: str, names: Iterable[str]) -> list[str]:
    return [_check.identity(f"one of {what}", name) for name in _check.several(what, names)]


def _some(product: Product | None, names: list[str] | None) -> Product | None:
    if product is None or names is None:
        return product
    return {name: product[name] for name in names if name in product}


def _texts(id: str, product: Mapping[str, Any]) -> dict[str, str]:
    """Return what a hash holds for the fields of a product."""
    if not isinstance(product, Mapping):
        raise TypeError(f"the product {id!r} must be a mapping, not {product!r:.80}")
    return {
        f":{_check.identity('the name of a field', name)}": encode(f"{id}.{name}", product[name])
        for name in product
    }


def _encoded(id: str, outcome: Any) -> tuple[str | Failure, list[str]]:
    """Return what a load gave as JSON, and the words of the hash that holds it."""
    if isinstance(outcome, Failure):
        return outcome, []
    if outcome is None:
        return "null", ["whole", "0"]
    try:
        texts = _texts(id, outcome)
        text = encode(id, dict(outcome))
    except (TypeError, ValueError) as error:
        return Failure(error), []
    return text, ["whole", "1", *(word for pair in texts.items() for word in pair)]


def _product(reply: Any) -> Product | None | Mark:
    """Return the product that a hash holds, or the Mark of why there is none."""
    if isinstance(reply, Mark):
        return reply
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2], strict=True))
    if not isinstance(reply, dict) or b"whole" not in reply:
        return Mark.MISS
    if reply[b"whole"] == b"0":
        return None
    try:
        return {
            name.decode()[1:]: from_json(text.decode())
            for name, text in reply.items()
            if name.startswith(b":")
        }
    except (ValueError, RecursionError):
        return Mark.CORRUPT


def _fields(reply: Any, names: list[str]) -> Product | None | Mark:
    """Return the fields that a reply to HMGET holds, or the Mark of why they are not to be had."""
    if not isinstance(reply, list) or len(reply) != 1 + len(names):
        return reply if isinstance(reply, Mark) else Mark.UNAVAILABLE
    whole, *texts = reply
    if whole == b"0":
        return None
    if whole is None and None in texts:
        return Mark.MISS
    try:
        return {
            name: from_json(text.decode())
            for name, text in zip(names, texts, strict=True)
            if text is not None
        }
    except (ValueError, RecursionError):
        return Mark.CORRUPT
