"""Caches that each lack one guard, and the promise that the contract suite must find broken."""

import asyncio
import json
import pickle

import redis

import cachelab as cl
from cachelab.flights import Contact
from cachelab.values import ALONE, LEASED


class Ours(cl.CacheAside):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(cl.connect(url, check=False), load=load, ttl=ttl, missing_ttl=missing_ttl)


class Recipe:
    """The common recipe at its best: it asks `is None`, remembers absence, falls back, and has no lease."""

    def __init__(self, url, load, ttl, missing_ttl):
        self.client = cl.connect(url, check=False)
        self.load, self.ttl, self.missing_ttl = load, round(ttl * 1000), round(missing_ttl * 1000)

    def get(self, id):
        try:
            text = self.client.get(id)
        except redis.RedisError:
            return self.load(id)
        if text is not None:
            return json.loads(text)
        value = self.load(id)
        try:
            self.client.set(id, json.dumps(value), px=self.missing_ttl if value is None else self.ttl)
        except redis.RedisError:
            pass
        return value

    def invalidate(self, id):
        self.client.delete(id)


class FalsyMiss(Recipe):
    def get(self, id):
        if value := self.client.get(id):
            return value
        value = self.load(id)
        if value is not None:
            self.client.set(id, value, px=self.ttl)
        return value


class NoneOnError(Recipe):
    def get(self, id):
        try:
            return json.loads(self.client.get(id) or "") if self.client.exists(id) else self.load(id)
        except redis.RedisError:
            return None


class Immortal(Ours):
    def _entry(self, outcome):
        return super()._entry(outcome)[0], 10**12


class ForgetsAbsence(Ours):
    def _entry(self, outcome):
        return ("", 1) if outcome == "null" else super()._entry(outcome)


class RemembersAbsenceForEver(Ours):
    def _entry(self, outcome):
        return super()._entry(outcome)[0], 60_000


class OneProcessAlone(Ours):
    """Shares a load among threads, and heeds no other process's lease."""

    def _states(self, tokens, replies, late):
        states = super()._states(tokens, replies, late)
        return {id: ALONE if state is LEASED else state for id, state in states.items()}


class StoresWhateverHappened(Ours):
    """Has the lease and does not look at it when it stores."""

    def _store(self, entries):
        for id, (_, text, ttl_ms) in entries.items():
            self._client.set(self._prefix + id, text or "null", px=ttl_ms)
        return [1] * len(entries)


class JoinsOldLoads(Ours):
    """Lets a read that starts after invalidate join a load that began before it."""

    def _invalidate(self, id):
        yield self._ask, Contact(probe=True), self._delete, [id]

    def _good_for(self, *args):
        return float("inf")


class Pickles(Recipe):
    def get(self, id):
        raw = self.client.execute_command("GET", id, NEVER_DECODE=True)
        if raw is not None:
            return pickle.loads(raw)  # noqa: S301
        value = self.load(id)
        self.client.set(id, pickle.dumps(value), px=self.ttl)
        return value


class WaitsForRedis(Recipe):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(url, load, ttl, missing_ttl)
        self.client = cl.connect(url, check=False, timeout=2.0)


class AsksAgainAndAgain(Ours):
    """Has short timeouts and no breaker."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._breaker._limit = 10**9


class ForgetsDeletes(Ours):
    def _invalidate(self, id):
        yield self._ask, Contact(probe=True), self._delete, [id]


class ForgetsPendingDeletes(Ours):
    """Says that the delete failed, and does not send it again."""

    def _settle(self, contact, ids):
        if not self._pending.keys().isdisjoint(ids):
            contact.left = 0.0
        self._pending.clear()
        yield from ()


class CachesErrors(Recipe):
    def get(self, id):
        try:
            return super().get(id)
        except LookupError:
            self.client.set(id, "null", px=self.ttl)
            return None


class DeletesByPattern(Recipe):
    def invalidate(self, id):
        for key in self.client.scan_iter(id):
            self.client.delete(key)


class FailsWhenFull(Recipe):
    def get(self, id):
        if (text := self.client.get(id)) is not None:
            return json.loads(text)
        value = self.load(id)
        self.client.set(id, json.dumps(value), px=self.ttl)
        return value


class ConnectsAtOnce(Recipe):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(url, load, ttl, missing_ttl)
        self.client.ping()


class StripsTexts(Ours):
    def _key(self, id):
        return super()._key(id).strip().lower()


class TakesAnyId(Recipe):
    def get(self, id):
        return super().get(str(id))


class GivesUp(Ours):
    """Never asks Redis again once it has been away."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._breaker._pause = 10**9


class CancelsTogether:
    """Async, with the textbook future that all readers of a load share."""

    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl, self.flights = cl.connect_async(url), load, ttl, {}

    async def get(self, id):
        if (text := await self.client.get(id)) is not None:
            return json.loads(text)
        if id not in self.flights:
            self.flights[id] = asyncio.ensure_future(self.fetch(id))
        return await self.flights[id]

    async def fetch(self, id):
        try:
            value = await self.load(id)
            await self.client.set(id, json.dumps(value), ex=self.ttl)
            return value
        finally:
            self.flights.pop(id, None)

    async def invalidate(self, id):
        await self.client.delete(id)


class NoLease(Recipe):
    """Right in everything but the order of events."""


BROKEN = {
    NoLease: "a load overtaken by invalidate",
    FalsyMiss: "an empty text",
    NoneOnError: "with Redis gone",
    Immortal: "every key that the cache writes expires",
    ForgetsAbsence: "an absent id is None and loaded once",
    RemembersAbsenceForEver: "created behind the cache's back",
    Recipe: "readers of a cold key load once",
    OneProcessAlone: "readers in two processes",
    StoresWhateverHappened: "overtaken by another process's invalidate",
    JoinsOldLoads: "overtaken by invalidate",
    Pickles: "holds nonsense",
    WaitsForRedis: "a frozen Redis",
    AsksAgainAndAgain: "a frozen Redis",
    ForgetsDeletes: "cannot reach Redis",
    ForgetsPendingDeletes: "cannot reach Redis",
    CachesErrors: "a load that raises",
    DeletesByPattern: "removes one id, literally",
    FailsWhenFull: "a full server",
    ConnectsAtOnce: "built while Redis is away",
    StripsTexts: "texts come back exactly",
    TakesAnyId: "is refused",
    GivesUp: "used again",
    CancelsTogether: "a cancelled first reader",
}
