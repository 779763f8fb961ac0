"""What both caches promise, each test for both; the naive way beside it where that fails."""

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
import redis
from conftest import when_all_wait

import cachelab as cl
from cachelab.cache.leases import KEPT
from cachelab.lab.measure.link import Link


class Origin:
    """A database of one dict that counts its loads and can be held in the middle of one."""

    def __init__(self, **rows):
        self.rows, self.loads, self.lock = rows, [], threading.Lock()
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def hold(self) -> None:
        self.entered.clear()
        self.go.clear()

    def get(self, id):
        with self.lock:
            self.loads.append(id)
            value = self.rows.get(id)
        self.entered.set()
        assert self.go.wait(30)
        return value

    def get_many(self, ids):
        with self.lock:
            self.loads.append(tuple(ids))
        return {id: self.rows[id] for id in ids if id in self.rows}


@pytest.fixture
def origin():
    return Origin(ada="Ada", empty="", zero="0", null="null", none=None, big="x" * 2000)


def naive(client, load):
    """The common recipe."""

    def get(id):
        if value := client.get(id):
            return value
        value = load(id)
        if value is not None:
            client.set(id, value)
        return value

    return get


# Hits and misses


@pytest.mark.parametrize(
    "value", ["", "0", "null", 0, False, [], {"a": [1, None]}, "é☃", "\ud800", 1e300]
)
def test_a_miss_returns_what_a_hit_returns_and_any_value_is_a_hit(make_cache, value):
    origin = Origin(x=value)
    cache = make_cache(origin.get)
    assert [cache.get("x"), cache.get("x"), cache.get("x")] == [value] * 3
    assert (origin.loads, cache.stats.hits, cache.stats.misses) == (["x"], 2, 1)


def test_the_common_recipe_loads_an_empty_value_every_time(client, origin):
    get = naive(client, origin.get)
    assert [get("empty") for _ in range(3)] == [""] * 3
    assert origin.loads == ["empty"] * 3


def test_an_absent_id_is_loaded_once_in_missing_ttl_and_visible_once_created(
    make_cache, client, origin
):
    cache = make_cache(origin.get, missing_ttl=50, prefix="p:")
    assert [cache.get("nobody") for _ in range(1000)] == [None] * 1000
    assert origin.loads == ["nobody"]
    assert client.get("p:nobody") == "null" and 0 < client.ttl("p:nobody") <= 50
    origin.rows["nobody"] = "here"
    cache.invalidate("nobody")
    assert cache.get("nobody") == "here"


def test_without_missing_ttl_absence_is_not_remembered(make_cache, client, origin):
    cache = make_cache(origin.get, missing_ttl=None)
    assert [cache.get("nobody"), cache.get("nobody")] == [None, None]
    assert origin.loads == ["nobody", "nobody"] and client.dbsize() == 0


def test_a_ttl_longer_than_redis_can_count_is_as_long_as_it_can(make_cache, client, origin):
    cache = make_cache(origin.get, ttl=1e300)
    assert [cache.get("ada"), cache.get("ada")] == ["Ada"] * 2 and client.ttl("ada") > 1e15
    assert cache.stats.errors == 0


def test_every_key_expires_within_ttl_and_jitter(make_cache, client):
    cache = make_cache(
        Origin(**{f"u{n}": n for n in range(200)}).get, ttl=10_000, jitter=0.5, missing_ttl=None
    )
    cache.warm(f"u{n}" for n in range(200))
    ttls = [client.ttl(f"u{n}") for n in range(200)]
    assert 4900 <= min(ttls) < 6000 and 9000 < max(ttls) <= 10_000


def test_a_value_that_is_not_json_raises_with_its_id_and_is_not_cached(make_cache, client):
    cache = make_cache(lambda id: {1, 2})
    with pytest.raises(TypeError, match="'thing' is not JSON"):
        cache.get("thing")
    assert client.dbsize() == 0


def test_a_value_above_the_limit_is_served_and_not_cached(make_cache, client, origin):
    cache = make_cache(origin.get, max_value_bytes=1000)
    assert cache.get("big") == "x" * 2000
    assert client.dbsize() == 0


def test_readers_share_no_object(make_cache, together):
    cache = make_cache(lambda id: {"names": []})
    values = together(20, cache.get, "x")
    values[0]["names"].append("mine")
    assert [value["names"] for value in values[1:]] == [[]] * 19


def test_a_hit_is_one_round_trip_of_one_command(make_cache, client, origin):
    cache = make_cache(origin.get)
    cache.get("ada")
    before = client.info("stats")["total_commands_processed"]
    for _ in range(10):
        cache.get("ada")
    assert client.info("stats")["total_commands_processed"] - before == 10 + 1


# Many at once


def test_get_many_is_one_mget_and_one_load_many(make_cache, client, origin):
    cache = make_cache(origin.get, load_many=origin.get_many)
    ids = ["ada", "empty", "nobody", "zero", "ada"]
    expected = {"ada": "Ada", "empty": "", "nobody": None, "zero": "0"}
    assert cache.get_many(ids) == expected
    assert origin.loads == [("ada", "empty", "nobody", "zero")]
    client.config_resetstat()
    assert cache.get_many(iter(ids)) == expected
    calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
    assert calls.pop("cmdstat_mget") == 1 and "cmdstat_get" not in calls
    assert (cache.stats.hits, cache.stats.misses) == (4, 4)


def test_get_many_without_load_many_loads_each_and_a_failure_spoils_no_other(
    make_cache, client, origin
):
    def load(id):
        if id == "bad":
            raise LookupError(id)
        return origin.get(id)

    cache = make_cache(load)
    with pytest.raises(LookupError, match="bad"):
        cache.get_many(["ada", "bad", "zero"])
    assert {key: client.get(key) for key in client.keys()} == {"ada": '"Ada"', "zero": '"0"'}


def test_get_many_of_nothing_is_nothing_and_of_a_str_an_error(make_cache, origin):
    cache = make_cache(origin.get)
    assert cache.get_many([]) == {}
    with pytest.raises(TypeError, match="several texts"):
        cache.get_many("ada")
    with pytest.raises(TypeError, match="several texts"):
        cache.warm(5)


def test_what_one_value_of_load_many_lacks_spoils_no_other(make_cache, client):
    cache = make_cache(str, load_many=lambda ids: {"a": 1, "b": {1, 2}})
    with pytest.raises(TypeError, match="'b' is not JSON"):
        cache.get_many(["a", "b", "c"])
    assert {key: client.get(key) for key in client.keys()} == {"a": "1", "c": "null"}


@pytest.mark.parametrize("answer", [["Ada"], None, iter([])])
def test_load_many_must_return_a_mapping(make_cache, client, answer):
    with pytest.raises(TypeError, match="load_many must return a mapping"):
        make_cache(str, load_many=lambda ids: answer).get_many(["a", "b"])
    assert client.dbsize() == 0


def test_warm_says_how_many_exist(make_cache, client, origin):
    cache = make_cache(origin.get, load_many=origin.get_many)
    assert cache.warm(["ada", "zero", "nobody"]) == 2
    assert sorted(client.keys()) == ["ada", "nobody", "zero"]


# One load


def test_200_readers_of_a_cold_key_load_once_where_the_common_recipe_loads_200_times(
    make_cache, client, origin, together
):
    cache = make_cache(origin.get)
    together(50, client.ping)  # a cold pool would hide a stampede
    origin.hold()
    threading.Thread(
        target=lambda: (origin.entered.wait(30), time.sleep(0.1), origin.go.set())
    ).start()
    assert together(200, cache.get, "ada") == ["Ada"] * 200
    assert origin.loads == ["ada"]
    assert cache.stats.hits + cache.stats.misses == 200

    crowd = threading.Barrier(200)
    loads = []

    def load(id):
        loads.append(id)
        crowd.wait(30)  # goes on when all 200 have come
        return "Ada"

    assert together(200, naive(client, load), "naive") == ["Ada"] * 200
    assert len(loads) == 200


def test_a_load_that_raises_reaches_every_reader_and_is_not_cached(make_cache, client, together):
    release, calls = threading.Event(), []

    def load(id):
        calls.append(id)
        release.wait(30)
        raise LookupError("no such table")

    cache = make_cache(load)
    when_all_wait(cache, 20, release)
    outcomes = together(20, cache.get, "x")
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 20
    assert client.dbsize() == 0 and len(calls) < 20


def test_two_caches_on_one_server_load_once_between_them(make_cache, origin, together):
    first, second = (make_cache(origin.get, lease=30) for _ in range(2))
    origin.hold()
    leader = threading.Thread(target=first.get, args=("ada",))
    leader.start()
    assert origin.entered.wait(30)
    when_all_wait(second, 20, origin.go)
    assert together(20, second.get, "ada") == ["Ada"] * 20
    leader.join()
    assert origin.loads == ["ada"]


def test_a_dead_holder_delays_others_by_its_lease_at_most(make_cache, client, origin):
    client.set("ada", "lease:of-a-process-that-died", px=300)
    cache = make_cache(origin.get, lease=30)
    assert cache.get("ada") == "Ada"
    assert origin.loads == ["ada"] and client.get("ada") == '"Ada"'


def test_a_lease_that_a_cut_network_has_kept_from_being_used_holds_its_owner_s_readers_up_no_more(
    make_cache, server, client, origin
):
    with Link(server.url) as link:
        cache = make_cache(origin.get, url=link.url, lease=60)
        origin.hold()
        reader = threading.Thread(target=cache.get, args=("ada",))
        reader.start()
        assert origin.entered.wait(30)
        link.cut()  # the store is lost
        origin.go.set()
        reader.join()
        link.heal()
        started = time.monotonic()
        assert client.get("ada").startswith("lease:")
        assert cache.get("ada") == "Ada" and client.get("ada") == '"Ada"'
        assert time.monotonic() - started < 30


def test_after_a_dead_holder_s_lease_one_reader_of_all_loads(make_cache, client, origin, together):
    first, second = (make_cache(origin.get, lease=30) for _ in range(2))
    together(50, client.ping)
    client.set("ada", "lease:of-a-process-that-died", px=KEPT - 30_000 + 300)
    origin.hold()
    threading.Thread(
        target=lambda: (origin.entered.wait(30), time.sleep(0.6), origin.go.set())
    ).start()
    caches = iter([first, second] * 50)
    assert together(100, lambda: next(caches).get("ada")) == ["Ada"] * 100
    assert origin.loads == ["ada"]


def test_a_lease_that_never_expires_holds_readers_up_once(make_cache, client, origin):
    client.set("ada", "lease:of-nobody")
    cache = make_cache(origin.get, lease=0.2)
    assert [cache.get("ada"), cache.get("ada")] == ["Ada"] * 2
    assert client.get("ada") == '"Ada"'


def test_who_has_waited_a_lease_takes_it_over_and_stores(make_cache, client, origin):
    client.set("ada", "lease:of-somebody-slow", px=KEPT)
    cache, started = make_cache(origin.get, lease=0.2), time.monotonic()
    assert cache.get("ada") == "Ada" and time.monotonic() - started >= 0.19
    assert client.get("ada") == '"Ada"'


def test_warming_a_slow_database_stores_what_it_loads(make_cache, client):
    def load(id):
        time.sleep(0.1)
        return id

    cache = make_cache(load, lease=0.5)
    assert cache.warm(f"u{n}" for n in range(12)) == 12  # longer than a lease in all
    assert (client.dbsize(), cache.stats.refused) == (12, 0)


def test_a_reader_that_is_interrupted_gives_its_lease_back(server, client):
    def load(id):
        raise KeyboardInterrupt

    cache = cl.CacheAside(client, load=load, ttl=60)
    with pytest.raises(KeyboardInterrupt):
        cache.get("ada")
    assert client.dbsize() == 0
    cache = cl.CacheAside(client, load=str, ttl=60)
    assert cache.get("ada") == "ada"  # and no flight of it is left


def test_at_most_max_loads_run_at_once(make_cache, together):
    running, most, lock = 0, 0, threading.Lock()

    def load(id):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return id

    cache = make_cache(load, max_loads=3)
    names = iter([f"u{n}" for n in range(30)])
    together(30, lambda: cache.get(next(names)))
    assert most == 3


def test_a_load_may_read_other_ids_however_few_loads_may_run_at_once(make_cache):
    cache = make_cache(lambda id: "leaf" if id == "inner" else cache.get("inner"), max_loads=1)
    values = []
    reader = threading.Thread(target=lambda: values.append(cache.get("outer")), daemon=True)
    reader.start()
    reader.join(30)
    assert values == ["leaf"]


def test_a_forked_child_waits_for_no_load_of_its_parent(server, client):
    code = """if True:
    import os, sys, threading, cachelab as cl
    entered, go = threading.Event(), threading.Event()
    def load(id):
        if os.getpid() != parent:
            return "child's"
        entered.set()
        go.wait(30)
    parent = os.getpid()
    cache = cl.CacheAside(cl.connect(sys.argv[1]), load=load, ttl=60, max_loads=1)
    reader = threading.Thread(target=cache.get, args=("ada",))
    reader.start()
    entered.wait(30)
    if not (child := os.fork()):
        print(cache.get("bob"), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    go.set()
    reader.join()
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, server.url], capture_output=True, timeout=40
    )
    assert run.stdout == b"child's\n"


def test_a_cancelled_reader_does_not_stop_the_load_that_others_wait_for(aclient, run_async):
    async def main():
        entered, go, loads = asyncio.Event(), asyncio.Event(), []

        async def load(id):
            loads.append(id)
            entered.set()
            await go.wait()
            return "Ada"

        cache = cl.AsyncCacheAside(aclient, load=load, ttl=60)
        first = asyncio.create_task(cache.get("ada"))
        await entered.wait()
        others = [asyncio.create_task(cache.get("ada")) for _ in range(100)]
        while cache.stats.waits < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        first.cancel()
        go.set()
        assert await asyncio.gather(*others) == ["Ada"] * 100
        assert (
            loads == ["ada"]
            and (await asyncio.gather(first, return_exceptions=True))[0].__class__
            is asyncio.CancelledError
        )

    run_async(main())


def test_one_async_cache_serves_one_event_loop_after_another(server, client):
    aclient, loads = cl.connect_async(server.url), []

    async def load(id):
        loads.append(id)
        return "Ada"

    cache = cl.AsyncCacheAside(aclient, load=load, ttl=60)

    async def main():
        try:
            return await cache.get("ada")
        finally:
            await aclient.connection_pool.disconnect()

    assert [asyncio.run(main()) for _ in range(3)] == ["Ada"] * 3
    assert loads == ["ada"]


# Freshness


def test_a_load_overtaken_by_invalidate_is_not_stored_and_not_joined(make_cache, origin):
    cache = make_cache(origin.get)
    origin.rows["ada"] = "old"
    origin.hold()
    reader = threading.Thread(target=cache.get, args=("ada",))
    reader.start()
    assert origin.entered.wait(30)  # the load has read the old row
    origin.rows["ada"] = "new"
    cache.invalidate("ada")
    origin.entered.clear()
    later = []
    second = threading.Thread(target=lambda: later.append(cache.get("ada")))
    second.start()
    assert origin.entered.wait(30)  # a later read loads for itself
    origin.go.set()
    reader.join()
    second.join()
    assert later == ["new"] and cache.get("ada") == "new"
    assert cache.stats.refused == 1


def test_the_common_recipe_keeps_the_old_value_of_a_load_overtaken_by_a_delete(client, origin):
    get = naive(client, origin.get)
    origin.rows["ada"] = "old"
    origin.hold()
    reader = threading.Thread(target=get, args=("ada",))
    reader.start()
    assert origin.entered.wait(30)
    origin.rows["ada"] = "new"
    client.delete("ada")
    origin.go.set()
    reader.join()
    assert get("ada") == "old"


def test_invalidate_by_another_cache_overtakes_a_load_too(make_cache, origin):
    first, second = make_cache(origin.get), make_cache(origin.get)
    origin.rows["ada"] = "old"
    origin.hold()
    reader = threading.Thread(target=first.get, args=("ada",))
    reader.start()
    assert origin.entered.wait(30)
    origin.rows["ada"] = "new"
    second.invalidate("ada")
    later = []
    follower = threading.Thread(target=lambda: later.append(first.get("ada")))
    follower.start()
    while first.stats.waits == 0:
        time.sleep(0.001)
    origin.go.set()
    reader.join()
    follower.join()
    assert later == ["new"] and second.get("ada") == "new"


def test_invalidate_deletes_one_literal_key(make_cache, client, origin):
    cache = make_cache(origin.get)
    cache.warm(["ada", "zero", "*"])
    cache.invalidate("*")
    assert sorted(client.keys()) == ["ada", "zero"]


# Failure


@pytest.fixture
def dead_url():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{reserved.getsockname()[1]}"


def test_redis_gone_gives_the_database_value_and_one_load_for_readers_together(
    make_cache, dead_url, origin, together
):
    cache = make_cache(origin.get, url=dead_url)
    assert cache.get("ada") == "Ada" and cache.get("nobody") is None
    assert cache.get_many(["ada", "zero"]) == {"ada": "Ada", "zero": "0"}
    assert cache.stats.errors >= 1 and cache.stats.hits == 0


def test_readers_together_without_redis_share_a_load(make_cache, dead_url, origin, together):
    cache = make_cache(origin.get, url=dead_url)
    origin.hold()
    when_all_wait(cache, 200, origin.go)
    assert together(200, cache.get, "ada") == ["Ada"] * 200
    assert 1 <= len(origin.loads) <= 2  # who came after the first began needs a newer one


def test_a_frozen_server_costs_half_a_second_at_most_and_then_nothing(make_cache, origin):
    with cl.Server() as server:
        cache = make_cache(origin.get, url=server.url, patient=False)
        cache.get("ada")
        server.freeze()
        started = time.monotonic()
        assert [cache.get("ada") for _ in range(50)] == ["Ada"] * 50
        assert (
            time.monotonic() - started < 50 * 0.45 / 2
        )  # the breaker has opened: most calls did not wait at all
        assert cache.stats.breaker == "open"
        server.thaw()
        hits = cache.stats.hits
        while cache.stats.hits == hits:
            assert cache.get("ada") == "Ada"
            time.sleep(0.01)
        assert cache.stats.breaker == "closed"


def test_a_server_that_talks_nonsense_gives_the_database_value(make_cache, origin):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(100)
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer).start()
        cache = make_cache(origin.get, url=f"redis://127.0.0.1:{listener.getsockname()[1]}")
        assert [cache.get("ada") for _ in range(3)] == ["Ada"] * 3
        assert cache.stats.errors == 3
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"plain text",
        b"\x80\x04N.",
        b"NaN",
        b"lease",
    ],
)
def test_a_poisoned_key_gives_the_database_value_and_is_mended(make_cache, client, origin, poison):
    cache = make_cache(origin.get)
    for read in (cache.get, lambda id: cache.get_many([id])[id]):
        client.delete("ada")
        client.set("ada", poison)
        assert read("ada") == "Ada"
        assert client.get("ada") == '"Ada"'
    assert cache.stats.errors_by_kind["BrokenValue"] == 2


def test_a_full_server_serves_everything_and_cached_keys_still_hit(make_cache, origin):
    with cl.Server(maxmemory="2mb") as server:
        client = cl.connect(server.url)
        cache = make_cache(origin.get, url=server.url)
        cache.get("ada")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            for n in range(100_000):
                client.set(f"fill{n}", "x" * 10_000)
        assert [cache.get(f"u{n}") for n in range(200)] == [None] * 200
        hits = cache.stats.hits
        assert cache.get("ada") == "Ada" and cache.stats.hits == hits + 1
        client.connection_pool.disconnect()


def test_a_wrong_password_is_logged_once(make_cache, server, origin, caplog):
    wrong = re.sub(r":[^:@]+@", ":wrong@", server.url)
    cache = make_cache(origin.get, url=wrong)
    while cache.stats.errors < 2:  # the breaker may be open, from the other kind's reads
        assert cache.get("ada") == "Ada"
    assert len(caplog.records) == 1 and "wrong@" not in caplog.text


def test_a_full_server_s_refusal_to_store_is_counted_and_holds_nobody_up(
    make_cache, client, origin
):
    cache = make_cache(origin.get, lease=300)
    origin.hold()
    reader = threading.Thread(target=cache.get, args=("ada",))
    reader.start()
    assert origin.entered.wait(30)
    client.config_set("maxmemory", "1mb")  # less than the server itself takes
    origin.go.set()
    reader.join()
    client.config_set("maxmemory", "256mb")
    assert cache.stats.errors_by_kind == {"OutOfMemoryError": 1} and client.get("ada").startswith(
        "lease:"
    )
    assert cache.get("ada") == "Ada" and client.get("ada") == '"Ada"'


def test_a_server_that_refuses_a_delete_still_gives_what_else_it_has(make_cache, origin):
    with cl.Server() as server, redis.Redis.from_url(server.url) as client:
        cache = make_cache(origin.get, url=server.url)
        cache.warm(["ada", "zero"])
        client.replicaof("127.0.0.1", 1)
        origin.rows["ada"] = "new"
        with pytest.raises(cl.InvalidationPending, match="'ada'"):
            cache.invalidate("ada")
        hits = cache.stats.hits
        assert [cache.get("zero"), cache.get("ada")] == [
            "0",
            "new",
        ] and cache.stats.hits == hits + 1


def test_one_contact_sends_every_delete_that_is_pending(make_cache, origin, monkeypatch):
    monkeypatch.setattr("cachelab.cache.pending.BATCH", 3)
    origin.rows |= {f"u{n}": "old" for n in range(10)}
    with cl.Server() as server, Link(server.url) as link:
        cache, other = make_cache(origin.get, url=link.url), make_cache(origin.get, url=server.url)
        other.warm(origin.rows)
        link.cut()
        for n in range(10):
            origin.rows[f"u{n}"] = "new"
            with pytest.raises(cl.InvalidationPending):
                cache.invalidate(f"u{n}")
        assert other.get("u9") == "old"
        link.heal()
        while cache.stats.hits == 0:
            cache.get("ada")
        assert [other.get(f"u{n}") for n in range(10)] == ["new"] * 10


def test_no_contact_goes_before_the_deletes_that_are_pending(
    make_cache, client, server, origin, monkeypatch
):
    monkeypatch.setattr("cachelab.cache.flights.RESEND", 60)
    with Link(server.url) as link:
        cache = make_cache(origin.get, url=link.url)
        cache.warm(["ada", "zero"])
        link.cut()
        with pytest.raises(cl.InvalidationPending):
            cache.invalidate("zero")
        link.heal()
        answers = iter([False])  # the breaker's pause ends between one command and the next
        monkeypatch.setattr(
            "cachelab.cache.breaker.Breaker.allows", lambda self: next(answers, True)
        )
        assert (cache.get("ada"), cache.stats.hits, client.exists("zero")) == ("Ada", 0, 1)
        assert (cache.get("ada"), cache.stats.hits, client.exists("zero")) == ("Ada", 1, 0)


def test_an_invalidation_that_cannot_reach_redis_is_kept_and_sent_later(make_cache, origin):
    with cl.Server() as server:
        cache, other = (
            make_cache(origin.get, url=server.url, patient=False),
            make_cache(origin.get, url=server.url),
        )
        cache.get("ada")
        server.freeze()
        origin.rows["ada"] = "new"
        with pytest.raises(cl.InvalidationPending, match="'ada'"):
            cache.invalidate("ada")
        assert cache.get("ada") == "new"
        server.thaw()
        while cache.stats.breaker == "open":
            assert cache.get("ada") == "new"
            cache.get("zero")
        assert cache.get("zero") == "0"
        assert other.get("ada") == "new"


def test_expiry_shortens_the_life_of_a_value_and_never_lengthens_it(make_cache, client):
    lives = {"ada": 5, "bob": 900}
    cache = make_cache(str.upper, ttl=60, jitter=0, expiry=lambda id, text: lives[id])
    plain = make_cache(str.upper, ttl=60, jitter=0, prefix="plain:")
    for id in ("ada", "bob", "eve"):  # eve's raises: she gets ttl
        assert cache.get(id) == plain.get(id) == id.upper()
    assert client.ttl("ada") <= 5 < 50 < client.ttl("bob") <= 60 and client.ttl("eve") > 50
    assert 55 < client.ttl("plain:ada") <= 60


# Arguments


@pytest.mark.parametrize("id", [None, 5, b"x", "", "x" * 513, "é" * 257, "\ud800"])
def test_a_bad_id_is_refused_before_anything_happens(make_cache, client, origin, id):
    cache = make_cache(origin.get)
    for call in (
        cache.get,
        cache.invalidate,
        lambda id: cache.get_many(["ada", id]),
        lambda id: cache.warm([id]),
    ):
        with pytest.raises((TypeError, ValueError), match="id must be"):
            call(id)
    assert origin.loads == [] and client.dbsize() == 0


def test_hostile_ids_are_kept_apart(make_cache, client):
    ids = [
        "a b",
        "a\nb",
        "a\r\nFLUSHALL\r\n",
        "user-*",
        "{a}",
        "a\0b",
        "é",
        "e\u0301",
        "ADA",
        "ada",
        "x" * 512,
        "lease:1",
    ]
    cache = make_cache(lambda id: f"value of {id}")
    assert cache.get_many(ids) == {id: f"value of {id}" for id in ids}
    assert [cache.get(id) for id in ids] == [f"value of {id}" for id in ids]
    assert client.dbsize() == len(ids) == cache.stats.loads


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl": 0}, {"ttl": -1}, {"ttl": True}, {"ttl": "5"}, {"ttl": None}, {"ttl": float("nan")},
        {"ttl": float("inf")}, {"jitter": -0.1}, {"jitter": 1.1}, {"missing_ttl": 0},
        {"lease": 0}, {"lease": 601}, {"max_loads": 0}, {"max_loads": 1.5}, {"max_loads": 10**9},
        {"max_wait": 0}, {"max_wait": 1e300}, {"max_value_bytes": 0}, {"prefix": 5},
        {"prefix": "\ud800"}, {"load": None}, {"load": "x"},
        {"load_many": 3}, {"expiry": 3},
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(bad):
    client, aclient = (
        cl.connect("redis://127.0.0.1:1", check=False),
        cl.connect_async("redis://127.0.0.1:1"),
    )
    for kind, connection in ((cl.CacheAside, client), (cl.AsyncCacheAside, aclient)):
        with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
            kind(connection, **{"load": str, "ttl": 60} | bad)


def test_each_cache_wants_the_client_of_its_kind():
    client, aclient = (
        cl.connect("redis://127.0.0.1:1", check=False),
        cl.connect_async("redis://127.0.0.1:1"),
    )
    with pytest.raises(TypeError, match=r"connect\(\)"):
        cl.CacheAside(aclient, load=str, ttl=60)
    with pytest.raises(TypeError, match=r"connect_async\(\)"):
        cl.AsyncCacheAside(client, load=str, ttl=60)


def test_a_coroutine_function_is_for_the_async_cache():
    async def load(id):
        return id

    with pytest.raises(TypeError, match="AsyncCacheAside"):
        cl.CacheAside(cl.connect("redis://127.0.0.1:1", check=False), load=load, ttl=60)


def test_a_plain_function_is_for_the_sync_cache(aclient, run_async):
    cache = cl.AsyncCacheAside(aclient, load=str.upper, ttl=60)
    with pytest.raises(TypeError, match=r"load must be an async function: CacheAside is"):
        run_async(cache.get("ada"))
