"""Values refreshed ahead: nobody waits for one, nobody reads one that is too old."""

import asyncio
import logging
import threading
import time

import pytest
from conftest import disconnected

import cachelab as cl
from cachelab.lab.contract.child import Child
from cachelab.writes import AsyncRefreshAhead, RefreshAhead, ahead

KINDS = RefreshAhead, AsyncRefreshAhead


class Origin:
    """Rows that count their loads, and can be held in the middle of one or made to fail."""

    def __init__(self, **rows):
        self.rows, self.loads, self.error = rows, [], None
        self.entered, self.go = threading.Semaphore(0), threading.Event()
        self.go.set()

    def load(self, id):
        self.loads.append(id)
        value, error = self.rows.get(id), self.error
        self.entered.release()
        assert self.go.wait(60)
        if error:
            raise error
        return value


@pytest.fixture
def origin():
    origin = Origin(ada="old", bob="Bob")
    yield origin
    origin.go.set()


@pytest.fixture
def make(make_cache, origin):
    """A function that makes a RefreshAhead of either kind, of that origin if not told otherwise."""

    def one(load=None, **options):
        options = {"ttl": 60, "grace": 60, "jitter": 0, "kinds": KINDS} | options
        return make_cache(load or origin.load, **options)

    return one


def age(client, seconds, *ids):
    """Take time off what keys have left: who asks Redis finds them so much older."""
    for id in ids or client.keys():
        client.pexpire(id, client.pttl(id) - round(1000 * seconds))


async def soon_async(condition):
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def soon(condition, seconds=30):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


# A refresh


def test_a_value_past_its_ttl_is_given_and_refreshed_apart(make, origin, client):
    cache = make()
    assert cache.get("ada") == "old" == cache.get("ada")
    origin.rows["ada"] = "new"
    age(client, 59)
    assert cache.get("ada") == "old" and origin.loads == ["ada"]
    age(client, 2)
    assert cache.get("ada") == "old"
    soon(lambda: cache.get("ada") == "new")
    assert origin.loads == ["ada", "ada"] and 119_000 < client.pttl("ada") <= 120_000
    stats = cache.stats
    assert (stats.misses, stats.loads, stats.refreshes, stats.failed) == (1, 2, 1, 0)
    assert stats.stale >= 1 and stats.hit_rate > 0.5


def test_two_hundred_readers_at_the_end_of_ttl_wait_for_nothing(
    make, make_cache, origin, client, together
):
    cache = make(patient=True)
    aside = make_cache(origin.load, patient=True, prefix="aside:")
    assert together(200, cache.get, "ada") == ["old"] * 200  # and connections are made
    origin.go.clear()
    origin.rows["ada"] = "new"
    age(client, 61)
    assert together(200, cache.get, "ada") == ["old"] * 200  # the load is still held
    assert origin.entered.acquire(timeout=30) and origin.entered.acquire(timeout=30)
    assert origin.loads == ["ada", "ada"] and cache.stats.stale == 200
    readers = [threading.Thread(target=aside.get, args=("ada",)) for _ in range(20)]
    for reader in readers:
        reader.start()
    time.sleep(0.1)
    assert all(reader.is_alive() for reader in readers)  # the control: a plain ttl has them wait
    origin.go.set()
    for reader in readers:
        reader.join()
    soon(lambda: cache.get("ada") == "new")
    assert cache.stats.refreshes == 1


def test_several_processes_refresh_once(client, together):
    def work(say):
        def load(id):
            client.incr("loads")
            client.blpop("go", 60)
            return "new"

        cache = RefreshAhead(client, load, ttl=60, grace=60, jitter=0, lease=60)
        cache.get("warm"), say("ready")
        client.blpop("begin", 60)
        say(str(set(together(50, cache.get, "ada"))))
        client.blpop("end", 60)

    RefreshAhead(client, {"ada": "old", "warm": 1}.get, ttl=60, grace=60, jitter=0).warm(
        ["ada", "warm"]
    )
    age(client, 61, "ahead:ada")
    with Child(work) as one, Child(work) as two, Child(work) as three:
        children = one, two, three
        assert [child.hear(30) for child in children] == ["ready"] * 3
        client.rpush("begin", 1, 2, 3)
        assert [child.hear(30) for child in children] == ["{'old'}"] * 3
        soon(lambda: client.get("loads") == "1")
        client.rpush("go", 1)
        soon(lambda: b'"new"' in client.execute_command("GET", "ahead:ada", NEVER_DECODE=True))
        assert client.get("loads") == "1"


def test_a_hit_is_one_round_trip_before_and_after_the_end_of_ttl(make, client, origin):
    cache = make()
    cache.get("ada")
    for seconds in (0, 61):
        age(client, seconds)
        origin.go.clear()
        cache.get("ada")
        soon(lambda n=seconds: len(origin.loads) == 1 + (n > 0))
        client.config_resetstat()
        before = client.info("stats")["total_reads_processed"]
        for _ in range(10):
            cache.get("ada")
        assert client.info("stats")["total_reads_processed"] - before == 10 + 1
        calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
        assert [calls[f"cmdstat_{name}"] for name in ("eval", "get", "pttl")] == [10] * 3


def test_a_refresh_is_due_at_a_time_of_its_own(client):
    cache = RefreshAhead(client, lambda id: id, ttl=100, grace=50, jitter=0.5, prefix="")
    cache.warm(map(str, range(100)))
    dues = [int(client.get(str(n)).split("|")[0]) for n in range(100)]
    assert 50_000 <= min(dues) < 60_000 and 90_000 < max(dues) <= 100_000
    assert {round(client.pttl(str(n)), -4) for n in range(100)} == {150_000}


def test_many_ids_are_read_in_one_round_trip_and_each_that_is_due_is_refreshed(
    make, client, origin
):
    origin.rows = {f"user-{n}": n for n in range(30)}
    cache = make(max_loads=3)
    assert cache.warm(origin.rows) == 30 and cache.get_many([]) == {}
    origin.go.clear()
    origin.loads.clear()
    age(client, 61, *(f"user-{n}" for n in range(20)))
    assert cache.get_many(origin.rows) == origin.rows == cache.get_many(origin.rows)
    soon(lambda: len(origin.loads) == 3)
    time.sleep(0.1)
    assert len(origin.loads) == 3  # as many as may run at once
    origin.go.set()
    soon(lambda: cache.stats.refreshes == 20)
    assert sorted(origin.loads) == sorted(f"user-{n}" for n in range(20))
    assert cache.get_many([*origin.rows, "nobody"])["nobody"] is None and cache.stats.misses == 31


def test_what_nobody_reads_is_not_refreshed_and_ends(make, client, origin):
    cache = make(ttl=0.05, grace=0.05)
    cache.get("ada")
    soon(lambda: not client.exists("ada"))
    assert origin.loads == ["ada"]


def test_absence_is_refreshed_as_values_are(make, client, origin):
    cache = make(missing_ttl=30)
    assert cache.get("eve") is None and 89_000 < client.pttl("eve") <= 90_000
    origin.rows["eve"] = "Eve"
    age(client, 31)
    assert cache.get("eve") is None
    soon(lambda: cache.get("eve") == "Eve")
    del origin.rows["eve"]
    age(client, 61)
    cache.get("eve")
    soon(lambda: cache.get("eve") is None)
    assert cache.stats.misses == 1


@pytest.mark.parametrize("value", [None, "long" * 10])
def test_a_refresh_that_brings_what_is_not_cached_takes_the_old_value_away(
    make, client, origin, value
):
    cache = make(missing_ttl=None, max_value_bytes=20)
    cache.get("ada")
    origin.rows["ada"] = value
    age(client, 61)
    assert cache.get("ada") == "old"
    soon(lambda: not client.exists("ada"))
    assert cache.get("ada") == value


# Loads that fail


def test_while_loads_fail_the_old_value_is_given_until_it_is_ttl_and_grace_old(
    make, client, origin, caplog
):
    cache = make(lease=10)
    cache.get_many(["ada", "bob"])
    origin.error = LookupError("the database is away")
    age(client, 61)
    for _ in range(50):
        assert cache.get_many(["ada", "bob"]) == {"ada": "old", "bob": "Bob"}
    soon(lambda: cache.stats.failed == 2)
    stats = cache.stats
    assert (stats.stale, stats.loads, stats.refreshes) == (100, 4, 2)  # nobody tries again yet
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 1 and "(LookupError): readers get the old value, until it is" in said[0]
    age(client, 10, "ada")
    assert cache.get("ada") == "old"
    soon(lambda: cache.stats.failed == 3)
    assert client.pttl("ada") <= 60_000 - 11_000  # no older for it
    client.pexpire("ada", 1)
    soon(lambda: not client.exists("ada"))
    with pytest.raises(LookupError, match="away"):
        cache.get("ada")
    assert cache.get("bob") == "Bob"
    origin.error = None
    age(client, 10, "bob")
    origin.rows["bob"] = "Robert"
    cache.get("bob")
    soon(lambda: cache.get("bob") == "Robert")


def test_with_the_database_dead_no_answer_is_older_than_ttl_and_grace(make, origin):
    ttl, grace, made = 0.3, 0.7, {}

    def load(id):
        if origin.error:
            raise origin.error
        made[id] = time.monotonic()
        return id

    cache = make(load, ttl=ttl, grace=grace, lease=0.1)
    ids = [f"user-{n}" for n in range(10)]
    cache.warm(ids)
    origin.error = LookupError("the database is away")
    oldest, served, ended = 0.0, 0, set()
    while len(ended) < len(ids):
        for id in ids:
            asked = time.monotonic()
            try:
                assert cache.get(id) == id and id not in ended
                oldest, served = max(oldest, asked - made[id]), served + 1
            except LookupError:
                ended.add(id)
                assert time.monotonic() - made[id] > ttl + grace
    print(f"{served} answers of {len(ids)} ids, the oldest {oldest:.3f} s old")
    assert oldest <= ttl + grace + 0.05 and cache.stats.stale > 0  # a reply may be under way
    assert 10 <= cache.stats.failed <= 10 * (1 + grace / 0.1)


def test_a_cold_id_raises_what_its_load_raises(make, origin):
    cache = make()
    origin.error = LookupError("the database is away")
    for _ in range(2):
        with pytest.raises(LookupError, match="away"):
            cache.get("ada")
    with pytest.raises(LookupError, match="away"):
        cache.get_many(["ada", "bob"])
    assert cache.stats.refreshes == 0


# Invalidation


def overtaken(make, origin, client, meanwhile):
    """Return what is read when a refresh has ended which read "moment" before something else."""
    cache, other, told = make(), make(), []
    cache.get("ada"), other.get("bob")
    getattr(cache, "cache", cache).observe(told.append)
    age(client, 61)
    origin.rows["ada"], held = "moment", origin.go
    origin.entered = threading.Semaphore(0)
    held.clear()
    cache.get("ada")
    assert origin.entered.acquire(timeout=30)
    origin.go = threading.Event()
    origin.go.set()  # other loads end
    meanwhile(other)
    held.set()
    soon(lambda: told)
    return cache.get("ada"), cache.stats.refused


def test_invalidate_wins_over_a_refresh_under_way(make, origin, client):
    def meanwhile(other):
        origin.rows["ada"] = "new"
        other.invalidate("ada")

    assert overtaken(make, origin, client, meanwhile) == ("new", 1)
    cache = make()
    cache.invalidate("ada")
    origin.rows["ada"] = "old"
    assert overtaken(make, origin, client, lambda _: None) == ("moment", 0)  # the control


def comes_back(origin):
    def meanwhile(other):
        origin.rows["ada"] = "old"
        other.invalidate("ada")
        assert other.get("ada") == "old"  # the value of before, stored anew

    return meanwhile


def test_invalidate_wins_though_the_value_comes_back(make, origin, client):
    assert overtaken(make, origin, client, comes_back(origin)) == ("old", 1)


def test_who_compares_values_stores_what_was_true_for_a_moment(make, origin, client, monkeypatch):
    whole = ahead.Ahead.entry

    def entry(self, outcome, settings):
        """One whose token is made of the value, so that equal values pass for the same."""
        (due, _, text), ttl = whole(self, outcome, settings)[0].split("|"), "120000"
        return f"{due}|{text.encode().hex()}|{text}", ttl

    monkeypatch.setattr(ahead.Ahead, "entry", entry)
    assert overtaken(make, origin, client, comes_back(origin)) == ("moment", 0)


def test_a_slow_refresh_is_joined_by_one_for_each_lease_and_the_first_to_end_stores(
    make, origin, client, caplog
):
    caches, told = [make(lease=0.2) for _ in range(2)], []
    for cache in caches:
        cache.get("ada")
        getattr(cache, "cache", cache).observe(told.append)
    origin.go.clear()
    age(client, 61)
    origin.rows["ada"] = "new"
    soon(lambda: [cache.get("ada") for cache in caches] and len(origin.loads) == 3)
    time.sleep(0.5)
    assert [cache.get("ada") for cache in caches] == ["old", "old"] and len(origin.loads) == 3
    origin.go.set()
    soon(lambda: len(told) == 2)
    assert sorted(load.ends["ada"] for load in told) == ["refused", "stored"]
    assert caches[0].get("ada") == "new" and "outlasts its lease" in caplog.text


# Processes, clocks, event loops, crashes


class ByItsOwnClock:
    """The usual form: the process's clock tells when a value is old."""

    def __init__(self, client, load, ttl):
        self.client, self.load, self.ttl = client, load, ttl

    def get(self, id):
        until, _, value = (self.client.get(id) or "0|").partition("|")
        if time.time() > float(until):
            value = self.load(id)
            self.client.set(id, f"{time.time() + self.ttl}|{value}", ex=300)
        return value


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_process_whose_clock_is_wrong_refreshes_when_others_do(client, hours):
    def work(say):
        right = time.time
        time.time = lambda: right() + 3600 * hours
        loads = []
        cache = RefreshAhead(client, lambda id: loads.append(id) or "new", **options)
        naive = ByItsOwnClock(client, lambda id: "new", 60)
        fresh = cache.get("ada"), len(loads), naive.get("naive")
        age(client, 61, "ahead:ada")
        old = cache.get("ada")
        soon(lambda: cache.get("ada") == "new")
        say(str((*fresh, old, len(loads))))

    options = {"ttl": 60, "grace": 60, "jitter": 0}
    RefreshAhead(client, str.upper, **options).get("ada")
    ByItsOwnClock(client, str.upper, 60).get("naive")
    with Child(work) as child:
        said = child.hear(30)
    naive = "new" if hours > 0 else "NAIVE"  # the control: a clock that goes ahead has it reload
    assert said == str(("ADA", 0, naive, "ADA", 1))


def test_another_begins_a_lease_after_a_refresher_was_killed(make, origin, client):
    def work(say):
        def load(id):
            say("refreshing")
            time.sleep(60)

        kinds = RefreshAhead(client, load, ttl=60, grace=60, jitter=0, prefix="", lease=1)
        kinds.get("ada")
        time.sleep(60)

    cache = make(lease=1)
    cache.get("ada")
    age(client, 61)
    with Child(work) as child:
        assert child.hear(30) == "refreshing"
    origin.rows["ada"], left = "new", client.pttl("ada")
    assert cache.get("ada") == "old"
    soon(lambda: cache.get("ada") == "new")
    due = int(client.get("ada").split("|")[0])
    assert origin.loads == ["ada", "ada"] and due == 60_000 and cache.stats.misses == 1
    print(f"{left} ms were left when it was killed, and it had been given a second")


def test_a_forked_child_refreshes_what_its_parent_has_under_way(origin, client):
    def work(say):
        origin.go, origin.entered = threading.Event(), threading.Semaphore(0)
        origin.go.set()
        age(client, 20)
        say(cache.get("ada"))
        soon(lambda: cache.get("ada") == "new")
        say("refreshed")

    cache = RefreshAhead(client, origin.load, ttl=60, grace=60, jitter=0, lease=10)
    cache.get("ada")
    origin.go.clear()
    age(client, 61)
    cache.get("ada")
    soon(lambda: len(origin.loads) == 2)
    origin.rows["ada"] = "new"
    with Child(work) as child:
        assert [child.hear(30), child.hear(30)] == ["old", "refreshed"]
    origin.go.set()


def test_event_loops_may_follow_each_other_and_cut_a_refresh_off(aclient, run_async, client):
    loads = []

    async def load(id):
        loads.append(id)
        if len(loads) == 2:
            await asyncio.sleep(60)  # the loop ends before
        return f"value {len(loads)}"

    cache = AsyncRefreshAhead(aclient, load, ttl=60, grace=60, jitter=0, lease=5, prefix="")

    async def until(condition):
        async def met():
            return condition(await cache.get("ada"))

        seen = await cache.get("ada")
        await soon_async(met)
        return seen

    assert run_async(until(lambda value: value == "value 1")) == "value 1"
    age(client, 61)
    assert run_async(until(lambda _: len(loads) == 2)) == "value 1"
    age(client, 5)
    assert run_async(until(lambda value: value == "value 3")) == "value 1"


def test_a_refresh_goes_on_when_the_reader_that_began_it_is_cancelled(aclient, run_async, client):
    async def main():
        entered, go, values = asyncio.Event(), asyncio.Event(), iter(["old", "new"])

        async def load(id):
            value = next(values)
            if value == "new":
                entered.set()
                await go.wait()
            return value

        async def is_new():
            return await cache.get("ada") == "new"

        async def read():
            assert await cache.get("ada") == "old"
            await asyncio.sleep(60)

        cache = AsyncRefreshAhead(aclient, load, ttl=60, grace=60, jitter=0, prefix="")
        await cache.get("ada")
        age(client, 61)
        reader = asyncio.create_task(read())
        await entered.wait()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        go.set()
        await soon_async(is_new)
        assert reader.cancelled() and cache.stats.refreshes == 1

    run_async(main())


# What else may stand in a key


BROKEN = [
    "",
    "{",
    "5",
    '"Ada"',
    "12|",
    "12||",
    "x|1f|5",
    "12|1f|{",
    "|||",
    "\x00",
    "lease",
    "-|1f|5",
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_entry_is_replaced(make, client, text):
    cache = make()
    client.set("ada", text, ex=60)
    assert cache.get_many(["ada"]) == {"ada": "old"} == {"ada": cache.get("ada")}
    assert (cache.stats.misses, cache.stats.errors_by_kind) == (1, {"BrokenValue": 1})


def test_an_entry_that_lost_its_expiry_is_given_one_again(make, origin, client):
    cache = make()
    cache.get("ada")
    client.persist("ada")
    origin.rows["ada"] = "new"
    assert cache.get("ada") == "old"
    soon(lambda: cache.get("ada") == "new" and client.pttl("ada") > 0)


def test_a_plain_cache_on_the_same_keys_is_said_once(make, make_cache, origin, client, caplog):
    plain = cl.CacheAside(client, origin.load, ttl=60, prefix="shared:")
    cache = make(prefix="shared:")
    for _ in range(3):
        assert plain.get("ada") == "old" == cache.get("ada") == plain.get("ada")
        assert cache.get_many(["ada"]) == {"ada": "old"}
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(said) == 1 and "prefix 'shared:' shares its keys with a cache of another" in said[0]


def test_a_key_of_another_type_is_left_alone(make, client):
    cache = make()
    client.rpush("ada", "not ours")
    assert cache.get("ada") == "old" and client.lrange("ada", 0, -1) == ["not ours"]


class Stop(BaseException):
    """What no cache catches."""


def test_a_refresh_that_ends_by_what_nobody_catches_leaves_the_next_one_free(
    origin, client, monkeypatch
):
    seen = []
    monkeypatch.setattr("sys.unraisablehook", lambda raised: seen.append(raised.exc_type))
    cache = RefreshAhead(client, origin.load, ttl=60, grace=60, jitter=0, max_loads=1, prefix="")
    cache.get("ada")
    age(client, 61)
    origin.error = Stop()
    assert cache.get("ada") == "old"
    soon(lambda: seen)
    assert seen == [Stop]
    origin.error, origin.rows["ada"] = None, "new"
    age(client, 5)
    cache.get("ada")
    soon(lambda: cache.get("ada") == "new")


def test_the_load_of_a_refresh_has_room_for_what_it_loads_itself(origin, client):
    def load(id):
        parts = [cache.get(f"{id} {n}") for n in range(2)] if len(id) == 3 else []
        return [origin.rows.get(id), *parts]

    options = {"ttl": 60, "grace": 60, "jitter": 0, "prefix": "", "max_loads": 1, "max_wait": 5}
    cache = RefreshAhead(client, load, **options)
    assert cache.get("ada") == ["old", [None], [None]]
    origin.rows["ada"] = "new"
    age(client, 61, "ada")
    client.delete("ada 0", "ada 1")
    cache.get("ada")
    soon(lambda: cache.get("ada")[0] == "new")
    assert cache.stats.failed == 0


# Redis away, arguments, places


def test_with_redis_away_the_database_serves_and_a_delete_is_kept(make, origin):
    with cl.Server() as server:
        cache, other = make(url=server.url), make(url=server.url)
        assert cache.get("ada") == "old" == other.get("ada")
        server.freeze()
        origin.rows["ada"] = "new"
        with pytest.raises(cl.InvalidationPending):
            cache.invalidate("ada")
        assert cache.get("ada") == "new" == cache.get_many(["ada"])["ada"]
        server.thaw()
        soon(lambda: other.get("ada") == "new")
        cl.connect(server.url).connection_pool.disconnect()


@pytest.mark.parametrize(
    ("argument", "value", "rule"),
    [
        ("grace", 0, "grace must be greater than 0, not 0"),
        ("grace", True, "grace must be a number, not True"),
        ("grace", float("nan"), "grace must be a finite number"),
        ("ttl", "5", "ttl must be a number"),
        ("lease", 601, "lease must be greater than 0 and at most 600"),
        ("load", 5, "load must be a function, not 5"),
    ],
)
def test_bad_arguments_are_refused(client, aclient, argument, value, rule):
    for kind, own in zip(KINDS, (client, aclient), strict=True):
        arguments = {"load": str, "ttl": 60, "grace": 60} | {argument: value}
        with pytest.raises((TypeError, ValueError), match=rule):
            kind(own, **arguments)
        with pytest.raises(TypeError, match="connect"):
            kind(aclient if own is client else client, str, ttl=60, grace=60)
    with pytest.raises(TypeError, match="load must be a plain function"):
        RefreshAhead(client, asyncio.sleep, ttl=60, grace=60)


def test_a_time_beyond_what_redis_keeps_is_cut_and_not_refused(make, client):
    cache = make(ttl=1e300, grace=1e300)
    assert cache.get("ada") == "old" == cache.get("ada") and cache.stats.errors == 0


@pytest.mark.further
@pytest.mark.parametrize("nodes", [cl.Cluster, cl.Sentinel])
def test_values_are_refreshed_on_a_cluster_and_behind_sentinels(nodes):
    rows = {f"user-{n}": "old" for n in range(20)}
    old, new = dict(rows), dict.fromkeys(rows, "new")
    options = {"ttl": 60, "grace": 60, "jitter": 0}

    def past(ids, prefix):
        for id in ids:
            client.pexpire(prefix + id, 59_000)

    async def load(id):
        return rows[id]

    async def main():
        async def are_new():
            return await cache.get_many(rows) == new

        aclient = cl.connect_async(started.url)
        cache = AsyncRefreshAhead(aclient, load, prefix="a:", **options)
        assert await cache.get_many(rows) == old
        rows.update(new)
        past(rows, "a:")
        assert await cache.get_many(rows) == old
        await soon_async(are_new)
        assert {id: await cache.get(id) for id in rows} == new
        await cache.invalidate("user-0")
        assert await cache.get("user-0") == "new" and cache.stats.refreshes == 20
        await disconnected(aclient)

    with nodes() as started:
        client = cl.connect(started.url)
        cache = RefreshAhead(client, rows.get, **options)
        assert cache.get_many(rows) == old
        rows.update(new)
        past(rows, "ahead:")
        assert cache.get_many(rows) == old
        soon(lambda: cache.get_many(rows) == new)
        assert {id: cache.get(id) for id in rows} == new and cache.stats.refreshes == 20
        rows.update(old)
        asyncio.run(main())
