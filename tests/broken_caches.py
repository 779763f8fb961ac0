"""Caches that each lack one guard, under the promise that the contract suite must find broken.

Those that derive from `Recipe` are written as people write them. The others are ours, with another
setting or with a method of one part replaced: `without` does so when the cache is made, in the
process of its own in which the contract tries it.
"""

import asyncio
import json
import logging
import pickle
import threading
from math import inf

import redis

import cachelab as cl
from cachelab.cache import core, leases
from cachelab.cache.breaker import Breaker
from cachelab.cache.codec import Failure, Mark
from cachelab.cache.flights import Awaiting, Blocking, Flight, Flights
from cachelab.cache.gate import Gate
from cachelab.cache.leases import Leases
from cachelab.cache.pending import PendingDeletes
from cachelab.cache.stats import Counts, log


class Ours(cl.CacheAside):
    """The real one, with other settings than it should have."""

    settings: dict = {}
    methods: dict = {}  # {(part, name): replacement}

    def __init__(self, url, load, ttl, missing_ttl):
        for (part, name), method in self.methods.items():
            setattr(part, name, method)
        times = {"ttl": ttl, "missing_ttl": missing_ttl}
        super().__init__(cl.connect(url, check=False), load=load, **times | self.settings)


class OursAsync(cl.AsyncCacheAside):
    settings = methods = {}

    def __init__(self, url, load, ttl, missing_ttl):
        for (part, name), method in self.methods.items():
            setattr(part, name, method)
        super().__init__(cl.connect_async(url), load=load, ttl=ttl, missing_ttl=missing_ttl)


def with_settings(name: str, **settings) -> type:
    """Return our cache, made with settings that its users do not ask for."""
    return type(name, (Ours,), {"settings": settings})


def without(name: str, part: type, base: type = Ours, **methods) -> type:
    """Return our cache with methods of one of its parts replaced."""
    replaced = {(part, method): function for method, function in methods.items()}
    return type(name, (base,), {"methods": replaced})


def nothing(*_, **__) -> None:
    """Do nothing, in the place of a method that does something."""


class Recipe:
    """The common recipe at its best: `is None`, absence remembered, a fallback, and no lease."""

    def __init__(self, url, load, ttl, missing_ttl):
        self.client = cl.connect(url, check=False)
        self.load, self.ttl, self.missing_ttl = load, round(ttl * 1000), round(missing_ttl * 1000)

    def key(self, id):
        return id

    def get(self, id):
        try:
            text = self.client.get(self.key(id))
        except redis.RedisError:
            return self.load(id)
        if text is not None:
            return json.loads(text)
        value = self.load(id)
        try:
            ttl = self.missing_ttl if value is None else self.ttl
            self.client.set(self.key(id), json.dumps(value), px=ttl)
        except redis.RedisError:
            pass
        return value

    def invalidate(self, id):
        self.client.delete(self.key(id))


# Reading


class Forgets(Recipe):
    def get(self, id):
        return self.load(id)


class FalsyCostsATrip(Recipe):
    """Asks whether the key is there when what it holds is false."""

    def get(self, id):
        value = json.loads(self.client.get(id) or "null")
        return value if value or self.client.exists(id) else super().get(id)


class FalsyMiss(Recipe):
    def get(self, id):
        if value := self.client.get(id):
            return value
        value = self.load(id)
        if value is not None:
            self.client.set(id, value, px=self.ttl)
        return value


class LowersIds(Recipe):
    def key(self, id):
        return id.lower()


class StripsIds(Recipe):
    def key(self, id):
        return id.strip()


class CutsTexts(Recipe):
    def get(self, id):
        value = super().get(id)
        return value and value[: 2**20]


class TakesAnyId(Recipe):
    def get(self, id):
        return super().get(str(id))


class DeletesByPattern(Recipe):
    def invalidate(self, id):
        for key in self.client.scan_iter(id):
            self.client.delete(key)


class InvalidatesNothing(Recipe):
    def invalidate(self, id):
        pass


class Pickles(Recipe):
    def get(self, id):
        raw = self.client.execute_command("GET", id, NEVER_DECODE=True)
        if raw is not None:
            return pickle.loads(raw)  # noqa: S301
        value = self.load(id)
        self.client.set(id, pickle.dumps(value), px=self.ttl)
        return value


class ReplacesOtherTypes(Recipe):
    """Mends a key that it cannot read, whoever's it is."""

    def get(self, id):
        try:
            self.client.get(id)
        except redis.ResponseError:
            self.client.delete(id)
        return super().get(id)


def lease_for_ever(self, tokens, known, take=Leases.take):
    replies = take(self, tokens, known)
    for id in tokens:
        self._client.persist(self._prefix + id)
    return replies


def delete_any_type(self, ids):
    keys = [self._prefix + id for id in ids]
    return self._send((key, ("DEL", key)) for key in keys)


# Loading


def store_no_give_back(self, entries, store=Leases.store):
    return store(self, {id: entry for id, entry in entries.items() if entry[1]})


def lease_that_ends(self, tokens, known, take=Leases.take):
    replies = take(self, tokens, known)
    for id in tokens:
        self._client.pexpire(self._prefix + id, 2500)
    return replies


# Who takes a lease over has a token of its own, so that the first holder stores nothing.
ANOTHER_TOKEN = leases.TAKE.replace("{1, held}", "{1, ARGV[1]}").replace(
    "redis.call('PEXPIRE', KEYS[1], ARGV[2])", "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"
)


def taken_by_nobody(self, outcome, as_of, ends=Flight.ends):
    ends(self, outcome, as_of if as_of == inf else -inf)


def one_room(self, loading, room=Flights.room):
    return room(self, ())


class CachesErrors(Recipe):
    def get(self, id):
        try:
            return super().get(id)
        except LookupError:
            self.client.set(id, "null", px=self.ttl)
            return None


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


# Freshness


def store_whatever_happened(self, entries):
    """Have the lease, and not look at it."""
    for id, (_, text, ttl_ms) in entries.items():
        self._client.set(self._prefix + id, text or "null", px=int(ttl_ms))
    return [1] * len(entries)


class SwallowsLostDeletes(Recipe):
    def invalidate(self, id):
        try:
            super().invalidate(id)
        except redis.RedisError:
            pass


def taken_by_whoever_waits(self, outcome, as_of, ends=Flight.ends):
    ends(self, outcome, inf)


class KeepsErrors(Ours):
    """Two guards are gone: the look at when a load began catches what `invalidate` lets through."""

    methods = {(Flights, "invalidate"): nothing, (Flight, "ends"): taken_by_whoever_waits}


# Failures


class NoneOnError(Recipe):
    def get(self, id):
        try:
            return (
                json.loads(self.client.get(id) or "") if self.client.exists(id) else self.load(id)
            )
        except redis.RedisError:
            return None


class ConnectsAtOnce(Recipe):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(url, load, ttl, missing_ttl)
        self.client.ping()


class WaitsForRedis(Recipe):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(url, load, ttl, missing_ttl)
        self.client = cl.connect(url, check=False, timeout=2.0)


class FailsWhenFull(Recipe):
    def get(self, id):
        if (text := self.client.get(id)) is not None:
            return json.loads(text)
        value = self.load(id)
        self.client.set(id, json.dumps(value), px=self.ttl)
        return value


def open_for_ever(self):
    self.is_quiet = False
    self._until = inf


def keep_connections(self, error):
    return Mark.UNLEASED


def say_each_time(self, subject, sentence, level=logging.WARNING):
    log.log(level, "%s", sentence)


# Interrupts


class Locks(Recipe):
    """Holds a lock while it talks to Redis and loads."""

    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(url, load, ttl, missing_ttl)
        self.lock = threading.Lock()

    def get(self, id):
        with self.lock:
            return super().get(id)

    def invalidate(self, id):
        with self.lock:
            super().invalidate(id)


def parents_flights(self):
    return self._groups.setdefault(0, Flights(self._room))


def renew_once(self, renew=Gate.renew):
    if not hasattr(self, "_room"):
        renew(self)


class TakesTimeLimits(Recipe):
    """Takes every error for one of Redis."""

    def get(self, id):
        try:
            return super().get(id)
        except Exception:
            return self.load(id)


BROKEN = {
    "hits_load_nothing": [Forgets],
    "hits_are_one_command": [FalsyCostsATrip],
    "empty_values_are_values": [FalsyMiss],
    "absence_is_remembered": [with_settings("ForgetsAbsence", missing_ttl=None)],
    "absence_is_forgotten": [with_settings("RemembersAbsenceForEver", missing_ttl=60)],
    "keys_expire": [with_settings("Immortal", ttl=10**9)],
    "leases_expire": [without("LeasesForEver", Leases, take=lease_for_ever)],
    "expiries_are_spread": [with_settings("NoJitter", jitter=0)],
    "texts_come_back_exactly": [LowersIds],
    "blanks_make_another_id": [StripsIds],
    "large_values_are_served": [CutsTexts, with_settings("KeepsAnySize", max_value_bytes=2**30)],
    "bad_ids_are_refused": [TakesAnyId],
    "invalidate_is_literal": [DeletesByPattern],
    "invalidate_is_seen": [InvalidatesNothing],
    "nonsense_is_mended": [Pickles],
    "other_types_are_left_alone": [
        ReplacesOtherTypes,
        without("DeletesAnyType", Leases, delete=delete_any_type),
    ],
    "readers_load_once": [Recipe],
    "processes_load_once": [with_settings("OneProcessAlone", lease=0.001)],
    "readers_load_twice_without_redis": [Recipe],
    "readers_do_not_load_in_turn": [
        without("LoadInTurn", Flight, ends=taken_by_nobody),
    ],
    "failures_reach_readers": [CachesErrors],
    "failures_are_not_shared": [without("OneError", Failure, of_reader=lambda self: self)],
    "failures_leave_no_lease": [without("GivesNothingBack", Leases, store=store_no_give_back)],
    "slow_loads_are_cached": [without("LeasesThatEnd", Leases, take=lease_that_ends)],
    "first_loads_to_end_are_cached": [without("TakesOverAlone", leases, TAKE=ANOTHER_TOKEN)],
    "dead_holders_delay_for_three_seconds": [with_settings("TooPatient", lease=60)],
    "endless_loads_delay_for_three_seconds": [
        without("NeverGivesUp", Leases, may_be_taken=lambda self, held, left_ms: False)
    ],
    "own_ids_are_an_error": [Recipe],
    "circles_are_an_error": [
        Recipe,
        without("WaitsInACircle", core, wait_in_a_circle=lambda *_: False),
    ],
    "inner_loads_have_room": [without("OneRoom", Flights, room=one_room)],
    "loads_are_bounded": [with_settings("NoLimit", max_loads=10_000)],
    "cancelled_readers_fail_nobody": [CancelsTogether],
    "cancelled_readers_stop_no_load": [
        without("NoShield", Awaiting, OursAsync, shielded=Blocking.shielded)
    ],
    "overtaken_loads_leave_nothing": [Recipe],
    "loads_overtaken_from_elsewhere_leave_nothing": [
        without("StoresWhateverHappened", Leases, store=store_whatever_happened)
    ],
    "lost_deletes_are_said": [
        SwallowsLostDeletes,
        without("ForgetsDeletes", PendingDeletes, add=nothing),
    ],
    "lost_deletes_are_sent": [without("SendsNothingAgain", Blocking, resend=nothing)],
    "lost_deletes_keep_loads_from_storing": [Recipe],
    "errors_do_not_outlive_invalidate": [KeepsErrors],
    "refused_deletes_are_respected": [
        without("LooksUpPendingIds", PendingDeletes, __contains__=lambda self, id: False),
    ],
    "followers_take_only_newer_loads": [
        without("JoinsOldLoads", Flight, ends=taken_by_whoever_waits)
    ],
    "reads_go_on_without_redis": [NoneOnError],
    "building_needs_no_redis": [ConnectsAtOnce],
    "frozen_servers_are_left_alone": [WaitsForRedis, without("AsksOn", Breaker, failed=nothing)],
    "redis_is_used_again": [without("GivesRedisUp", Breaker, failed=open_for_ever)],
    "demoted_servers_are_left": [without("KeepsConnections", Gate, refused=keep_connections)],
    "full_servers_serve": [FailsWhenFull],
    "mistakes_are_said_once": [
        without("SaysNothing", Counts, say=nothing),
        without("SaysItEachTime", Counts, say=say_each_time),
    ],
    "signal_handlers_may_call": [Locks],
    "finalisers_may_call": [Locks],
    "forked_children_may_call": [
        Locks,
        without("ParentsFlights", Blocking, group=parents_flights),
        without("ParentsRoom", Gate, renew=renew_once),
    ],
    "time_limits_pass": [TakesTimeLimits],
}
