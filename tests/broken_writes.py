"""Writes and values refreshed ahead that each lack one guard, by the promise they must break.

Those that write behind derive from `ByHand`, which holds every promise, or do as people do.
"""

import json
import os
import sqlite3
import threading
import time
import uuid
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import redis
from broken_caches import Recipe

import cachelab as cl
from cachelab.writes import RefreshAhead

STREAM, GROUP, BATCH, TRIES = "writes", "rows", 50, 5
UPSERT = """INSERT INTO cachelab_users VALUES (?, ?)
            ON CONFLICT (id) DO UPDATE SET value = excluded.value"""


def number(message):
    """Return the id of a message in the order of numbers: "9-0" is before "10-0"."""
    return tuple(map(int, message.split("-")))


class ByHand:
    """A write-behind as a learner may write it, which holds every promise."""

    def __init__(self, url, database, max_length, claim_after):
        self.client = cl.connect(url, check=False, retries=0)
        self.database, self.path = database, database.url.removeprefix("sqlite:///")
        self.max_length, self.claim_after = max_length, round(1000 * claim_after)
        self.me = f"worker-{os.getpid()}"
        with suppress(redis.ResponseError):  # the group is there
            self.client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
        with self.transaction() as rows:
            rows.execute("CREATE TABLE IF NOT EXISTS applied (message TEXT PRIMARY KEY)")
            rows.execute(
                "CREATE TABLE IF NOT EXISTS versions (id TEXT PRIMARY KEY, time INT, number INT)"
            )

    @contextmanager
    def transaction(self):
        with closing(sqlite3.connect(self.path, isolation_level=None)) as rows:
            rows.execute("BEGIN IMMEDIATE")
            try:
                yield rows
            except BaseException:
                rows.execute("ROLLBACK")
                raise
            rows.execute("COMMIT")

    # Who writes

    def put(self, id, value):
        if self.client.xlen(STREAM) >= self.max_length:
            raise cl.CachelabError(f"{self.max_length} writes wait: try again later")
        message = self.add(id, value)
        self.client.hset("pending", id, json.dumps([message, value]))
        return message

    def add(self, id, value):
        return self.client.xadd(STREAM, {"id": id, "value": json.dumps(value)})

    def get(self, id):
        waiting = self.client.hget("pending", id)
        return json.loads(waiting)[1] if waiting else self.database.get(id)

    # The worker

    def work(self):
        messages = self.claim() + self.read()
        try:
            self.apply(messages)
        except sqlite3.IntegrityError:
            messages = [each for each in messages if self.is_done(each)]
        self.acknowledge(messages)

    def claim(self):
        claimed = self.client.xautoclaim(STREAM, GROUP, self.me, self.claim_after, count=BATCH)
        return claimed[1]

    def read(self):
        found = self.client.xreadgroup(GROUP, self.me, {STREAM: ">"}, count=BATCH, block=50)
        return found[0][1] if found else []

    def apply(self, messages):
        with self.transaction() as rows:
            for message, fields in messages:
                if self.is_new(rows, message) and self.is_newer(rows, fields["id"], message):
                    self.write(rows, fields["id"], json.loads(fields["value"]))

    def is_new(self, rows, message):
        done = rows.execute("INSERT INTO applied VALUES (?) ON CONFLICT DO NOTHING", [message])
        return done.rowcount == 1

    def is_newer(self, rows, id, message):
        done = rows.execute(
            """INSERT INTO versions VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE
               SET time = excluded.time, number = excluded.number
               WHERE (excluded.time, excluded.number) > (versions.time, versions.number)""",
            [id, *number(message)],
        )
        return done.rowcount == 1

    def write(self, rows, id, value):
        if value is None:
            rows.execute("DELETE FROM cachelab_users WHERE id = ?", [id])
        else:
            rows.execute(UPSERT, [id, value])

    def is_done(self, each):
        """Apply one message of a batch that failed; say whether it need not be tried again."""
        message, fields = each
        try:
            self.apply([each])
        except sqlite3.IntegrityError as error:
            (held,) = self.client.xpending_range(STREAM, GROUP, message, message, 1)
            if held["times_delivered"] < TRIES:
                return False
            self.set_aside(message, fields, error)
        return True

    def set_aside(self, message, fields, error):
        self.client.xadd("aside", fields | {"message": message, "error": str(error)})

    def acknowledge(self, messages):
        if messages:
            self.client.xack(STREAM, GROUP, *(message for message, _ in messages))
        for message, fields in messages:
            self.forget(message, fields["id"])
        self.trim()

    def forget(self, message, id):
        waiting = self.client.hget("pending", id)
        if waiting and json.loads(waiting)[0] == message:
            self.client.hdel("pending", id)

    def trim(self):
        applied = []
        for group in self.client.xinfo_groups(STREAM):
            oldest = self.client.xpending(STREAM, group["name"])["min"]
            applied.append(oldest or group["last-delivered-id"])
        self.client.xtrim(STREAM, minid=min(applied, key=number), approximate=False)


# Writing behind


class AppliesOneOfABatch(ByHand):
    def apply(self, messages):
        super().apply(messages[:1])


class EmptyIsGone(ByHand):
    def put(self, id, value):
        return super().put(id, value or None)


class DeletesAfterPuts(ByHand):
    """Puts what is to be put, then deletes what is to be deleted."""

    def apply(self, messages):
        with self.transaction() as rows:
            for is_delete in (False, True):
                for message, fields in messages:
                    value = json.loads(fields["value"])
                    if (value is None) == is_delete and self.is_new(rows, message):
                        self.write(rows, fields["id"], value)


class TrustsClocks(ByHand):
    """Takes the newest of the times that those who put have read from their clocks."""

    def add(self, id, value):
        fields = {"id": id, "value": json.dumps(value), "time": time.time_ns()}
        return self.client.xadd(STREAM, fields)

    def apply(self, messages):
        with self.transaction() as rows:
            for message, fields in messages:
                when = f"{fields['time']}-0"
                if self.is_new(rows, message) and self.is_newer(rows, fields["id"], when):
                    self.write(rows, fields["id"], json.loads(fields["value"]))


class AcknowledgesFirst(ByHand):
    def apply(self, messages):
        self.client.xack(STREAM, GROUP, *(message for message, _ in messages))
        super().apply(messages)


class Pops(ByHand):
    """A list in the place of the stream."""

    def put(self, id, value):
        self.client.rpush("list", json.dumps([id, value]))

    def work(self):
        popped = self.client.lpop("list", BATCH) or []
        with self.transaction() as rows:
            for text in popped:
                self.write(rows, *json.loads(text))


class NotIdempotent(ByHand):
    def is_new(self, rows, message):
        return True

    def is_newer(self, rows, id, message):
        return True


class RemembersTheLast(ByHand):
    """Takes each message before the last one that it has applied for done."""

    def is_new(self, rows, message):
        last = max((number(text) for (text,) in rows.execute("SELECT * FROM applied")), default=())
        return number(message) > last and super().is_new(rows, message)


class LooksBefore(ByHand):
    """Looks whether a message is new before the transaction that would know."""

    def apply(self, messages):
        with closing(sqlite3.connect(self.path)) as rows:
            done = {message for (message,) in rows.execute("SELECT message FROM applied")}
        messages = [each for each in messages if each[0] not in done]
        with self.transaction() as rows:
            for message, fields in messages:
                self.is_new(rows, message)
                self.write(rows, fields["id"], json.loads(fields["value"]))


class RemembersIdsAlone(ByHand):
    def is_newer(self, rows, id, message):
        return True


class TriesTheWholeBatch(ByHand):
    def is_done(self, each):
        return False


class DropsWhatFails(ByHand):
    def set_aside(self, message, fields, error):
        pass


class DropsWhatFailsOnce(ByHand):
    def is_done(self, each):
        with suppress(sqlite3.IntegrityError):
            self.apply([each])
        return True


class TriesForEver(ByHand):
    def is_done(self, each):
        with suppress(sqlite3.IntegrityError):
            self.apply([each])
            return True
        return False


class CountsEveryFailure(ByHand):
    """Takes a database that is locked for a message that is bad."""

    failures = 0

    def work(self):
        messages = self.claim() + self.read()
        try:
            self.apply(messages)
        except sqlite3.Error as error:
            self.failures += 1
            if self.failures < TRIES:
                return
            for message, fields in messages:
                self.set_aside(message, fields, error)
        self.acknowledge(messages)


class DropsTheOldest(ByHand):
    def put(self, id, value):
        fields = {"id": id, "value": json.dumps(value)}
        self.client.xadd(STREAM, fields, maxlen=self.max_length, approximate=False)


class HasNoLimit(ByHand):
    def put(self, id, value):
        return self.add(id, value)


class SwallowsErrors(ByHand):
    def put(self, id, value):
        with suppress(redis.RedisError):
            super().put(id, value)


class DeletesWhatIsApplied(ByHand):
    def trim(self):
        pass

    def acknowledge(self, messages):
        super().acknowledge(messages)
        for message, _ in messages:
            self.client.xdel(STREAM, message)


class KeepsEveryMessage(ByHand):
    def trim(self):
        pass


class ReadsRowsAlone(ByHand):
    def get(self, id):
        return self.database.get(id)


class ForgetsByRow(ByHand):
    def forget(self, message, id):
        self.client.hdel("pending", id)


class KeepsCopies(ByHand):
    """Keeps what it has read, and does not say when that is old."""

    def get(self, id):
        copy = self.client.get(f"copy:{id}")
        if copy is None:
            copy = json.dumps(super().get(id))
            self.client.set(f"copy:{id}", copy, ex=60)
        return json.loads(copy)


# Writing to the database at once


class Around(cl.CacheAside):
    """Our cache-aside, and the row before the delete: it holds every promise."""

    settings = {}

    def __init__(self, url, load, store, ttl):
        self.store, self.client = store, cl.connect(url, check=False)
        super().__init__(self.client, load=load, **{"ttl": ttl} | self.settings)

    def put(self, id, value):
        self.store(id, value)
        self.invalidate(id)


class LeavesTheCache(Around):
    def put(self, id, value):
        self.store(id, value)


class CacheFirst(Around):
    def put(self, id, value):
        self.client.set(f"cache:{id}", json.dumps(value), px=60_000)
        super().put(id, value)


class StoresLater(Around):
    """The common write-through: what it has committed, as soon as it comes to that."""

    def put(self, id, value):
        self.store(id, value)
        self.client.set(f"cache:{id}", json.dumps(value), px=60_000)


class WithoutLeases(Around):
    """The common recipe, whose loads store what they have read, however late."""

    get = Recipe.get
    key = Recipe.key
    missing_ttl = 30_000

    def __init__(self, url, load, store, ttl):
        super().__init__(url, load, store, ttl)
        self.load, self.ttl = load, round(1000 * ttl)

    def invalidate(self, id):
        self.client.delete(id)


class OldForEver(Around):
    settings = {"ttl": 10**6}


class SwallowsLostDeletes(Around):
    def put(self, id, value):
        with suppress(cl.CachelabError):
            super().put(id, value)


# Refreshing ahead


class AheadByHand:
    """What is refreshed ahead as a learner may write it; it holds every promise of its kind."""

    lease = 1.0
    compare = "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return end "
    replace = "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])"

    def __init__(self, url, load, ttl, grace):
        self.client, self.load = cl.connect(url, check=False), load
        self.grace, self.whole = round(1000 * grace), round(1000 * (ttl + grace))
        self.known = {}  # which refreshes are under way, and until when that is believed

    def get(self, id):
        text, left = self.read(id)
        if text is None:
            return self.fetch(id)
        if self.is_old(text, left):
            self.refresh(id, text)
        return json.loads(text)["value"]

    def read(self, id):
        return self.client.pipeline(transaction=False).get(id).pttl(id).execute()

    def is_old(self, text, left):
        return left < self.grace

    def refresh(self, id, text):
        if time.monotonic() < self.known.get(text, 0):
            return
        self.known[text] = time.monotonic() + self.lease
        if self.client.set(f"claim:{text}", 1, nx=True, px=round(1000 * self.lease)):
            self.begin(id, text)

    def begin(self, id, text):
        threading.Thread(target=self.fetch_apart, args=(id, text), daemon=True).start()

    def fetch_apart(self, id, text):
        with suppress(LookupError):
            self.fetch(id, text)

    def fetch(self, id, text=""):
        value = self.load(id)
        self.client.eval(self.compare + self.replace, 1, id, text, self.entry(value), self.whole)
        return value

    def entry(self, value):
        return json.dumps({"value": value, "token": uuid.uuid4().hex})

    def invalidate(self, id):
        self.client.delete(id)


class WaitsForItsRefresh(AheadByHand):
    begin = AheadByHand.fetch_apart


class EachRefreshes(AheadByHand):
    refresh = AheadByHand.begin


class NeverRefreshes(AheadByHand):
    def is_old(self, text, left):
        return False


class RefreshesOnce(AheadByHand):
    """Forgets that what was refreshed is to be refreshed again."""

    def refresh(self, id, text):
        if id not in self.known:
            self.known[id] = True
            self.begin(id, text)


class GivesErrors(AheadByHand):
    begin = AheadByHand.fetch


class TooOld(AheadByHand):
    def __init__(self, url, load, ttl, grace):
        super().__init__(url, load, ttl, grace)
        self.grace, self.whole = self.grace + 10**6, self.whole + 10**6


class CountsNothing(RefreshAhead):
    def __init__(self, url, load, ttl, grace):
        super().__init__(cl.connect(url, check=False), load=load, ttl=ttl, grace=grace)

    @property
    def stats(self):
        return replace(super().stats, stale=0)


class StoresWhateverHappened(AheadByHand):
    compare = ""


class ComparesValues(AheadByHand):
    def entry(self, value):
        return json.dumps({"value": value})


class AsksForTheAge(AheadByHand):
    def read(self, id):
        return self.client.get(id), self.client.pttl(id)


class RefreshesAll(AheadByHand):
    """Has a timer for each id, read or not."""

    def fetch(self, id, text=""):
        timer = threading.Timer((self.whole - self.grace) / 1000, self.fetch, (id,))
        timer.daemon = True
        timer.start()
        return super().fetch(id, text)


class ReadsTheClock(AheadByHand):
    def is_old(self, text, left):
        return time.time() > json.loads(text)["until"]

    def entry(self, value):
        until = time.time() + (self.whole - self.grace) / 1000
        return json.dumps({"value": value, "until": until, "token": uuid.uuid4().hex})


class ClaimsForEver(AheadByHand):
    lease = 10**6


BEHIND = {
    "puts_are_applied": [AppliesOneOfABatch],
    "texts_arrive_exactly": [EmptyIsGone],
    "batches_keep_order": [DeletesAfterPuts],
    "clocks_may_differ": [TrustsClocks],
    "killed_workers_lose_nothing": [AcknowledgesFirst, Pops],
    "killed_workers_apply_once": [NotIdempotent],
    "late_claims_are_applied": [RemembersTheLast],
    "two_workers_apply_once": [LooksBefore],
    "stopped_workers_bring_nothing_back": [RemembersIdsAlone],
    "refused_puts_stop_nobody": [TriesTheWholeBatch],
    "refused_puts_are_set_aside": [DropsWhatFails, DropsWhatFailsOnce, TriesForEver],
    "locked_databases_lose_nothing": [CountsEveryFailure],
    "full_streams_refuse": [DropsTheOldest, HasNoLimit],
    "lost_puts_are_said": [SwallowsErrors],
    "messages_are_kept_for_each_group": [DeletesWhatIsApplied, KeepsEveryMessage],
    "own_writes_are_read": [ReadsRowsAlone],
    "older_puts_do_not_come_back": [ForgetsByRow],
    "applied_puts_are_seen": [KeepsCopies],
}

DIRECT = {
    "puts_are_seen": [LeavesTheCache],
    "refused_puts_are_not_read": [CacheFirst],
    "writers_end_alike": [StoresLater],
    "overtaken_by_puts": [WithoutLeases],
    "dead_writers_leave_little": [OldForEver],
    "puts_without_redis_are_said": [SwallowsLostDeletes],
}
AHEAD = {
    "readers_do_not_wait": [WaitsForItsRefresh],
    "refreshes_are_made_once": [EachRefreshes],
    "refreshes_arrive": [NeverRefreshes],
    "refreshes_go_on": [RefreshesOnce],
    "old_values_bridge_failures": [GivesErrors],
    "nothing_is_older_than_ttl_and_grace": [TooOld],
    "failing_refreshes_are_spread": [EachRefreshes],
    "old_values_are_counted": [CountsNothing],
    "invalidate_wins_over_refreshes": [StoresWhateverHappened],
    "values_that_come_back_are_told_apart": [ComparesValues],
    "hits_are_one_round_trip": [AsksForTheAge],
    "cold_keys_are_left_alone": [RefreshesAll],
    "clocks_may_be_wrong": [ReadsTheClock],
    "dead_refreshers_are_replaced": [ClaimsForEver],
}
BROKEN = {"write-behind": BEHIND, "write-through": DIRECT, "refresh-ahead": AHEAD}
