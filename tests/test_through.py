"""Writing through and around a cache: every order of steps, crashes between them, Redis away."""

import asyncio
import functools
import itertools
import os
import random
import signal
import threading
import time
from contextlib import suppress

import pytest
from conftest import Awaited, disconnected

import cachelab as cl
from cachelab.lab.contract.child import Child
from cachelab.writes import (
    AsyncRefreshAhead,
    AsyncWriteAround,
    AsyncWriteThrough,
    RefreshAhead,
    WriteAround,
    WriteThrough,
)

TWINS = {WriteThrough: AsyncWriteThrough, WriteAround: AsyncWriteAround}


class Table:
    """A database of the server's own, so that processes share it: one hash, and a count of reads.

    It is written with clients that do not try again: a test counts on each write being one.
    """

    def __init__(self, client):
        self.client, self.loads = client, []

    def get(self, id):
        self.loads.append(id)
        return self.client.hget("rows", id)

    def put(self, id, value):
        if value is None:
            self.client.hdel("rows", id)
        else:
            self.client.hset("rows", id, value)

    def __getitem__(self, id):
        return self.client.hget("rows", id)


@pytest.fixture
def table(client):
    return Table(client)


class Writer:
    """A writer of either kind on a cache of either kind, called from threads."""

    def __init__(self, kind, cache, store):
        self.cache, self.kind = cache, kind
        if isinstance(cache, Awaited):
            store = functools.partial(asyncio.to_thread, store)
            self.writer = TWINS[kind](cache.cache, store)
        else:
            self.writer = kind(cache, store)

    def __getattr__(self, name):
        call = getattr(self.writer, name)
        if isinstance(self.cache, Awaited):
            return lambda *args: self.cache.run(call(*args))
        return call


class SetsAfter:
    """What is usually called write-through: commit, then SET."""

    def __init__(self, cache, store):
        self.client, self.store = cache.client, store

    def put(self, id, value):
        self.store(id, value)
        self.client.set(id, f'"{value}"', ex=60)


class DeletesBefore:
    """The order that many use: delete, then commit."""

    def __init__(self, cache, store):
        self.cache, self.store = cache, store

    def put(self, id, value):
        self.cache.invalidate(id)
        self.store(id, value)


# One writer


def test_a_put_through_is_in_the_database_and_a_hit(make_cache, table, client):
    cache = make_cache(table.get)
    writer = Writer(WriteThrough, cache, table.put)
    cache.get("ada")  # absent, and remembered as such
    writer.put("ada", "Ada")
    assert (table["ada"], cache.get("ada"), table.loads) == ("Ada", "Ada", ["ada"])
    assert 50_000 < client.pttl("ada") <= 60_000
    writer.delete("ada")
    assert (table["ada"], cache.get("ada"), client.get("ada")) == (None, None, "null")
    assert table.loads == ["ada"] and client.pttl("ada") <= 30_000


def test_a_put_around_is_in_the_database_and_the_next_read_loads(make_cache, table, client):
    cache = make_cache(table.get)
    writer = Writer(WriteAround, cache, table.put)
    cache.get("ada")
    writer.put("ada", "Ada")
    assert (table["ada"], client.get("ada")) == ("Ada", None)
    assert (cache.get("ada"), table.loads) == ("Ada", ["ada", "ada"])
    writer.delete("ada")
    assert (table["ada"], cache.get("ada")) == (None, None)


def test_what_is_not_to_be_cached_is_written_and_not_cached(make_cache, table, client):
    cache = make_cache(table.get, max_value_bytes=10, missing_ttl=None)
    writer = Writer(WriteThrough, cache, table.put)
    writer.put("ada", "x")
    for value in ("long" * 10, None):
        writer.put("ada", value)
        assert (table["ada"], client.exists("ada"), cache.get("ada")) == (value, 0, value)


@pytest.mark.parametrize("kind", TWINS)
def test_bad_input_is_refused_before_anything_is_written(make_cache, table, client, kind):
    writer = Writer(kind, make_cache(table.get), table.put)
    client.set("ada", '"Ada"')
    for id in ("", 5, None, "x" * 513, "\ud800"):
        with pytest.raises((TypeError, ValueError), match="id must be"):
            writer.put(id, "value")
    if kind is WriteThrough:
        for value, error in (({1, 2}, TypeError), (float("nan"), TypeError)):
            with pytest.raises(error, match="the value put for 'ada' is not JSON"):
                writer.put("ada", value)
        with pytest.raises(ValueError, match="two keys become '1'"):
            writer.put("ada", {1: "a", "1": "b"})
    assert client.keys() == ["ada"] and client.get("ada") == '"Ada"'


def test_a_writer_takes_caches_and_functions_of_its_own_kind(client, aclient):
    cache, store = cl.CacheAside(client, str, ttl=60), {}.__setitem__
    acache = cl.AsyncCacheAside(aclient, asyncio.sleep, ttl=60)
    for kind, twin in TWINS.items():
        for one, other, names in ((kind, acache, "a CacheAside"), (twin, cache, "an AsyncCache")):
            with pytest.raises(TypeError, match=f"cache must be {names}"):
                one(other, store)
            with pytest.raises(TypeError, match="cache must be"):
                one(client, store)
        with pytest.raises(TypeError, match="store must be a plain function .* AsyncWrite"):
            kind(cache, asyncio.sleep)
        for one, own in ((kind, cache), (twin, acache)):
            with pytest.raises(TypeError, match="store must be .* not 5"):
                one(own, 5)


@pytest.mark.parametrize("kind", TWINS)
def test_a_plain_store_given_to_an_async_writer_is_named(aclient, run_async, kind, client):
    async def main():
        writer = TWINS[kind](cl.AsyncCacheAside(aclient, asyncio.sleep, ttl=60), {}.__setitem__)
        with pytest.raises(TypeError, match="store must be an async function"):
            await writer.put("ada", "Ada")

    run_async(main())
    assert client.keys() == []


@pytest.mark.parametrize("kind", TWINS)
def test_a_key_of_another_type_is_left_alone(make_cache, table, client, kind):
    client.rpush("ada", "not ours")
    writer = Writer(kind, cache := make_cache(table.get), table.put)
    writer.put("ada", "Ada")
    assert table["ada"] == "Ada" == cache.get("ada") and client.lrange("ada", 0, -1) == ["not ours"]


# Readers during a put


def test_a_reader_during_a_put_waits_for_it_and_does_not_load(make_cache, table):
    cache, committing, go = make_cache(table.get, lease=60), threading.Event(), threading.Event()

    def store(id, value):
        committing.set()
        go.wait()
        table.put(id, value)

    table.put("ada", "old")
    cache.get("ada")
    writer, seen = Writer(WriteThrough, cache, store), []
    put = threading.Thread(target=writer.put, args=("ada", "new"))
    put.start()
    committing.wait()
    reader = threading.Thread(target=lambda: seen.append(cache.get("ada")))
    reader.start()
    time.sleep(0.1)
    assert seen == []
    go.set()
    put.join(), reader.join()
    assert seen == ["new"] and table.loads == ["ada"]


def test_a_reader_during_a_slow_put_loads_when_the_lease_is_over(make_cache, table, client):
    cache, committing, go = make_cache(table.get, lease=0.1), threading.Event(), threading.Event()

    def store(id, value):
        committing.set()
        go.wait()
        table.put(id, value)

    table.put("ada", "old")
    writer = Writer(WriteThrough, cache, store)
    put = threading.Thread(target=writer.put, args=("ada", "new"))
    put.start()
    committing.wait()
    assert (cache.get("ada"), client.get("ada")) == ("old", '"old"')  # which is the truth still
    go.set()
    put.join()
    assert cache.get("ada") == "new" and client.get("ada") == '"new"'


# Several writers: every order of what they do


class Killed(BaseException):
    """What ends a writer between commit and cache: nothing of its own runs after it."""


class Actor(threading.Thread):
    """Somebody whose steps a test takes one by one: what it does between two is the step."""

    def __init__(self):
        super().__init__(daemon=True)
        self.went, self.came = threading.Semaphore(0), threading.Semaphore(0)
        self.is_over = False

    def run(self):
        self.went.acquire()
        with suppress(Killed):
            self.act()
        self.is_over = True
        self.came.release()

    def pause(self):
        self.came.release()
        self.went.acquire()

    def step(self):
        if not self.is_over:
            if not self.is_alive():
                self.start()
            self.went.release()
            assert self.came.acquire(timeout=30)


class Puts(Actor):
    """Three steps: to the commit, the commit, and the rest."""

    def __init__(self, kind, cache, rows, value, dies=False):
        super().__init__()
        self.value, self.rows, self.dies = value, rows, dies
        self.writer = kind(cache, self.store)

    def act(self):
        self.writer.put("ada", self.value)

    def store(self, id, value):
        self.pause()
        self.rows[id] = value
        self.pause()
        if self.dies:
            raise Killed


class Reads(Actor):
    """Two steps where it loads, to the row and the rest; else one."""

    def __init__(self, client, rows, lease):
        super().__init__()
        self.rows, self.client = rows, client
        self.cache = cl.CacheAside(client, self.load, ttl=60, prefix="", lease=lease)

    def act(self):
        self.cache.get("ada")

    def load(self, id):
        value = self.rows[id]
        self.pause()
        return value


class Glances(Reads):
    """One step: a read, unless it would wait for a writer."""

    def act(self):
        if not (self.client.get("ada") or "").startswith("lease:"):
            self.cache.get("ada")

    def load(self, id):
        return self.rows[id]


def orders(*counts):
    """Return every order of so many steps of each of several actors; of very many, some."""
    steps = [number for number, count in enumerate(counts) for _ in range(count)]
    if len(steps) <= 7:
        return sorted(set(itertools.permutations(steps)))
    draw = random.Random(0)
    return [tuple(draw.sample(steps, len(steps))) for _ in range(100)]


def ends(client, kind, order, dies=False, lease=0.001):
    """Return what the key and the database have when all actors have gone through an order.

    With a lease that is over at once readers get in everywhere. The first may die.
    """
    client.set("ada", '"old"', ex=60)
    rows = {"ada": "old"}
    cache = cl.CacheAside(client, rows.get, ttl=60, prefix="", lease=lease)
    cache.client = client
    makers = {
        3: lambda n: Puts(kind, cache, rows, f"v{n}", dies and n == 0),
        2: lambda _: Reads(client, rows, lease),
        1: lambda _: Glances(client, rows, lease),
    }
    actors = [makers[order.count(number)](number) for number in sorted(set(order))]
    for number in order:
        actors[number].step()
    for actor in actors:
        while not actor.is_over:
            actor.step()
    return client.get("ada"), rows["ada"]


def is_stale(held, row):
    return held is not None and held != f'"{row}"'


CROWDS = {"two": (3, 3), "two and a reader": (3, 3, 2), "three": (3, 3, 3)}


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("kind", [WriteThrough, WriteAround])
def test_in_whatever_order_writers_commit_and_store_the_cache_has_what_the_database_has(
    client, kind, crowd
):
    for order in orders(*CROWDS[crowd]):
        end = ends(client, kind, order)
        assert not is_stale(*end), (order, end)


@pytest.mark.parametrize(
    ("kind", "crowd"), [(SetsAfter, "two"), (DeletesBefore, "two and a reader")]
)
def test_the_usual_orders_of_a_put_end_stale(client, kind, crowd):
    every = [is_stale(*ends(client, kind, order)) for order in orders(*CROWDS[crowd])]
    print(f"{kind.__name__}: stale after {sum(every)} of {len(every)} orders")
    assert 0 < sum(every) < len(every)


def test_who_dies_after_the_commit_leaves_no_old_value_whatever_others_do_meanwhile(client):
    held = set()
    for order in orders(3, 3, 1):
        end, row = ends(client, WriteThrough, order, dies=True, lease=60)
        assert end is None or end.startswith("lease:write:") or end == f'"{row}"', (order, end)
        held.add(end and end[:6])
    assert "lease:" in held


def test_a_lease_that_another_writer_replaces_protects_nobody_who_dies(client, monkeypatch):
    one_at_a_time = """
    redis.call('SET', KEYS[1], 'lease:write:' .. ARGV[1], 'PX', ARGV[2])
    return 1
    """
    monkeypatch.setattr("cachelab.writes.through.BEGIN", one_at_a_time)
    every = [ends(client, WriteThrough, order, dies=True, lease=60) for order in orders(3, 3)]
    assert ('"v1"', "v0") in every


def test_writers_that_overlap_make_no_lease_younger_and_an_old_one_is_replaced(client):
    rows = {}
    cache = cl.CacheAside(client, rows.get, ttl=60, prefix="", lease=200)
    writers = [Puts(WriteThrough, cache, rows, n) for n in range(3)]
    held, left = [], []
    for writer, older in zip(writers, (500_000, 300_000, 600_000), strict=True):
        writer.step()
        held.append(client.get("ada").removeprefix("lease:write:"))
        left.append(client.pttl("ada"))
        client.pexpire("ada", older)
    assert held[1].startswith(f"{held[0]}+") and left[1] <= 500_000 < left[0]
    assert "+" not in held[2] and left[2] > 500_000  # a reader would have loaded by then
    for writer in writers:
        writer.step(), writer.step()
    assert not client.exists("ada")


def test_writers_of_many_threads_leave_what_the_database_has(make_cache, table, together, client):
    cache = make_cache(table.get, patient=True)
    writer = Writer(WriteThrough, cache, table.put)
    numbers = itertools.count()

    def work():
        for _ in range(25):
            writer.put("ada", f"v{next(numbers)}")
            cache.get("ada")

    assert together(6, work) == [None] * 6
    assert client.get("ada") in (None, f'"{table["ada"]}"')


# Whoever is interrupted


@pytest.fixture
def killed(client, table):
    """Have a child killed between the commit and the cache."""

    def kill(kind, **options):
        def work(say):
            def store(id, value):
                table.put(id, value)
                os.kill(os.getpid(), signal.SIGKILL)

            kind(cl.CacheAside(client, table.get, prefix="", **options), store).put("ada", "new")

        with Child(work) as child, pytest.raises(EOFError):
            child.hear(30)

    return kill


def test_a_crash_between_commit_and_cache_leaves_a_lease_and_never_the_old_value(
    make_cache, client, table, killed
):
    cache = make_cache(table.get, lease=0.5)
    table.put("ada", "old")
    cache.get("ada")
    killed(WriteThrough, ttl=60, lease=0.5)
    assert table["ada"] == "new" and client.get("ada").startswith("lease:write:")
    began = time.monotonic()
    assert cache.get("ada") == "new" and cache.stats.loads == 2
    print(f"the next reader waited {time.monotonic() - began:.2f} s")  # the lease, 0.5 s
    assert client.get("ada") == '"new"' and time.monotonic() - began < 5


def test_a_crash_of_a_writer_around_leaves_the_old_value_for_its_ttl(
    make_cache, client, table, killed
):
    cache = make_cache(table.get, ttl=1, jitter=0)
    table.put("ada", "old")
    cache.get("ada")
    killed(WriteAround, ttl=1)
    assert table["ada"] == "new" and 0 < client.pttl("ada") <= 1000
    assert cache.get("ada") == "old"  # what through does not leave
    while client.exists("ada"):
        time.sleep(0.02)
    assert cache.get("ada") == "new"


@pytest.mark.parametrize("kind", TWINS)
def test_a_store_that_raises_leaves_nothing_cached_and_its_exception_passes(
    make_cache, table, client, kind
):
    def store(id, value):
        raise LookupError("no such table")

    cache = make_cache(table.get)
    table.put("ada", "old")
    cache.get("ada")
    with pytest.raises(LookupError, match="no such table"):
        Writer(kind, cache, store).put("ada", "new")
    assert not client.exists("ada") and cache.get("ada") == "old"


@pytest.mark.parametrize("kind", [WriteThrough, WriteAround])
def test_an_interrupt_in_a_store_leaves_no_old_value(client, table, kind):
    def store(id, value):
        table.put(id, value)
        raise KeyboardInterrupt

    cache = cl.CacheAside(client, table.get, ttl=60, prefix="", lease=0.1)
    table.put("ada", "old")
    cache.get("ada")
    with pytest.raises(KeyboardInterrupt):
        kind(cache, store).put("ada", "new")
    assert client.get("ada") != '"old"' and cache.get("ada") == "new"


@pytest.mark.parametrize("kind", [AsyncWriteThrough, AsyncWriteAround])
def test_a_put_goes_on_when_its_task_is_cancelled(aclient, run_async, client, kind):
    rows = {"ada": "old"}

    async def load(id):
        return rows[id]

    async def main():
        entered, go, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def store(id, value):
            entered.set()
            await go.wait()
            rows[id] = value
            left.set()

        cache = cl.AsyncCacheAside(aclient, load, ttl=60, prefix="")
        assert await cache.get("ada") == "old"
        put = asyncio.create_task(kind(cache, store).put("ada", "new"))
        await entered.wait()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        go.set()
        await left.wait()
        while (held := client.get("ada")) not in (None, '"new"'):
            assert held == '"old"' or held.startswith("lease:write:")
            await asyncio.sleep(0.005)
        assert await cache.get("ada") == "new"

    run_async(main())


# Redis away


@pytest.mark.parametrize("kind", TWINS)
def test_with_redis_away_the_row_is_committed_and_the_delete_is_kept(make_cache, kind):
    rows = {"ada": "old"}
    with cl.Server() as server:
        cache, other = (make_cache(rows.get, server.url) for _ in range(2))
        writer = Writer(kind, cache, rows.__setitem__)
        assert other.get("ada") == cache.get("ada") == "old"
        server.freeze()
        with pytest.raises(cl.InvalidationPending, match="The row of 'ada' is committed"):
            writer.put("ada", "new")
        assert rows["ada"] == "new" == cache.get("ada")
        server.thaw()
        until = time.monotonic() + 20
        while other.get("ada") != "new":
            assert time.monotonic() < until
            time.sleep(0.02)
        writer.put("ada", "newer")
        assert other.get("ada") == "newer" == cache.get("ada")
        cl.connect(server.url).connection_pool.disconnect()


@pytest.mark.parametrize("kind", TWINS)
def test_with_redis_away_what_store_raised_passes_and_names_the_delete_that_is_kept(
    make_cache, kind
):
    def store(id, value):
        raise LookupError("no such table")

    with cl.Server() as server:
        url = server.url
    cache = make_cache({"ada": "old"}.get, url)
    with pytest.raises(LookupError) as raised:
        Writer(kind, cache, store).put("ada", "new")
    assert "delete of 'ada'" in raised.value.__notes__[0]


def test_redis_lost_during_the_commit_leaves_nothing_old(make_cache):
    rows = {"ada": "old"}
    with cl.Server() as server:
        cache = make_cache(rows.get, server.url)

        def store(id, value):
            rows[id] = value
            server.freeze()

        assert cache.get("ada") == "old"
        with pytest.raises(cl.InvalidationPending, match="is committed"):
            Writer(WriteThrough, cache, store).put("ada", "new")
        server.thaw()
        assert cache.get("ada") == "new"
        cl.connect(server.url).connection_pool.disconnect()


# Other caches, other places


def test_a_put_through_a_refresh_ahead_is_an_entry_of_its_own(make_cache, table, client):
    kinds = RefreshAhead, AsyncRefreshAhead
    cache = make_cache(table.get, kinds=kinds, grace=60)
    writer = Writer(WriteThrough, cache, table.put)
    for value in ("Ada", "Countess", None):
        writer.put("ada", value)
        assert (cache.get("ada"), table["ada"], table.loads) == (value, value, [])
    assert 80_000 < client.pttl("ada") <= 90_000  # missing_ttl + grace
    around = Writer(WriteAround, cache, table.put)
    around.put("ada", "Ada")
    assert (client.exists("ada"), cache.get("ada")) == (0, "Ada")


@pytest.mark.further
@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("nodes", [cl.Cluster, cl.Sentinel])
def test_writers_on_a_cluster_and_behind_sentinels(nodes, kind):
    ids = [f"user-{n}" for n in range(20)]
    rows = dict.fromkeys(ids, "old")

    async def load(id):
        return rows[id]

    async def store(id, value):
        rows[id] = value

    async def main(url):
        client = cl.connect_async(url)
        cache = cl.AsyncCacheAside(client, load, ttl=60)
        await asyncio.gather(*(TWINS[kind](cache, store).put(id, "newer") for id in ids))
        loads = cache.stats.loads
        assert await cache.get_many(ids) == dict.fromkeys(ids, "newer")
        assert cache.stats.loads == loads + (kind is WriteAround) * len(ids)
        await disconnected(client)

    with nodes() as started:
        cache = cl.CacheAside(cl.connect(started.url), rows.get, ttl=60)
        cache.warm(ids)
        for id in ids:
            kind(cache, rows.__setitem__).put(id, "new")
        hits = cache.stats.hits
        assert cache.get_many(ids) == dict.fromkeys(ids, "new")
        assert cache.stats.hits == hits + (kind is WriteThrough) * len(ids)
        asyncio.run(main(started.url))
