"""What a miss costs and promises: slow loads, dead holders, bounds, who may take whose value."""

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest
from conftest import at_best, when_all_wait

import cachelab as cl
from cachelab.cache.leases import KEPT
from cachelab.lab.measure.link import Link


class Slow:
    """A database of which every read takes its time, and which counts them."""

    def __init__(self, seconds: float):
        self.seconds, self.loads = seconds, []

    def get(self, id):
        self.loads.append(id)
        time.sleep(self.seconds)
        return id

    def get_many(self, ids):
        self.loads.extend(ids)
        time.sleep(self.seconds)
        return {id: id for id in ids}


class OldForm:
    """The lease as it is often built: it ends after its time, and with it the right to store."""

    def __init__(self, client, load, lease):
        self.client, self.load, self.lease = client, load, round(1000 * lease)

    def get(self, id):
        while (text := self.client.get(id)) is None or text.startswith("lease:"):
            token = f"lease:{threading.get_ident()}"
            if self.client.set(id, token, nx=True, px=self.lease):
                value = self.load(id)
                if self.client.get(id) == token:
                    self.client.set(id, value, ex=60)
                return value
            time.sleep(0.005)
        return text


# Slow loads, and holders that die


def test_loads_that_outlast_their_lease_are_stored_where_the_old_form_stores_none(
    make_cache, client
):
    database = Slow(0.3)
    cache = make_cache(database.get, lease=0.1)
    ids = [f"u{n}" for n in range(4)]
    assert cache.get_many(ids) == cache.get_many(ids) == {id: id for id in ids}
    assert sorted(database.loads) == ids and cache.stats.refused == 0

    old = OldForm(client, database.get, lease=0.1)
    old.get("old"), old.get("old")
    assert database.loads.count("old") == 2


def test_each_value_is_stored_as_its_load_ends(make_cache, client):
    seen = []

    def load(id):
        seen.append(client.mget("u0", "u1", "u2"))
        return 1

    make_cache(load, max_loads=1).get_many(["u0", "u1", "u2"])
    assert seen[1][0] == "1" and seen[2][:2] == ["1", "1"]


def test_a_quick_id_waits_for_no_slow_one(make_cache):
    entered, go = threading.Event(), threading.Event()

    def load(id):
        if id == "slow":
            entered.set()
            assert go.wait(30)
        return id

    cache = make_cache(load)
    reader = threading.Thread(target=cache.get_many, args=(["slow", *map(str, range(40))],))
    reader.start()
    assert entered.wait(30)
    assert cache.get("39") == "39"  # while the slow one is on its way
    go.set()
    reader.join()


def test_a_crowd_of_one_process_never_overtakes_a_slow_load(make_cache, together):
    database = Slow(0.5)
    cache = make_cache(database.get, lease=0.1)
    assert together(50, cache.get, "ada") == ["ada"] * 50
    assert database.loads == ["ada"] and cache.get("ada") == "ada" and cache.stats.hits == 1


def test_sixty_ids_through_two_slots_load_once_each(make_cache, together):
    database = Slow(0.02)
    cache = make_cache(database.get, max_loads=2, lease=0.1)
    ids = iter([f"u{n}" for n in range(60)] * 5)
    together(300, lambda: cache.get(next(ids)))
    assert 60 <= len(database.loads) <= 66


def test_several_processes_begin_one_more_load_for_each_lease_s_length(
    make_cache, client, together
):
    database, lease = Slow(0.9), 0.3
    caches = [make_cache(database.get, lease=lease) for _ in range(8)]
    turns, began = iter(caches * 4), time.monotonic()
    assert together(32, lambda: next(turns).get("ada")) == ["ada"] * 32
    took = time.monotonic() - began
    assert client.get("ada") == '"ada"' and len(database.loads) <= 1 + took / lease


def test_a_lease_taken_over_keeps_its_token_so_that_the_first_to_end_stores(make_cache, client):
    entered, go, tokens = threading.Event(), threading.Event(), []

    def slow(id):
        entered.set()
        assert go.wait(30)
        return "slow"

    def quick(id):
        tokens.append(client.get(id))
        go.set()
        reader.join()  # the first one ends while this load is under way
        return "quick"

    first, second = make_cache(slow), make_cache(quick, lease=0.1)
    reader = threading.Thread(target=first.get, args=("ada",))
    reader.start()
    assert entered.wait(30)
    token = client.get("ada")
    assert second.get("ada") == "quick" and tokens == [token]
    assert client.get("ada") == '"slow"'


def test_a_lease_tells_its_age_by_what_it_has_left(make_cache, client):
    cache = make_cache(str.upper, lease=30)
    client.set("old", "lease:of-the-dead", px=KEPT - 30_001)
    assert cache.get("old") == "OLD" and client.get("old") == '"OLD"'  # at once
    client.set("former", "lease:of-a-former-release", px=10_000)
    assert cache.get("former") == "FORMER"


def test_a_delete_refuses_a_load_of_a_holder_that_was_stopped_and_goes_on(make_cache, client):
    go, entered = threading.Event(), threading.Event()

    def load(id):
        entered.set()
        assert go.wait(30)
        return "old"

    first, second = make_cache(load, lease=0.1), make_cache(lambda id: "new", lease=0.1)
    reader = threading.Thread(target=first.get, args=("ada",))
    reader.start()
    assert entered.wait(30)
    second.invalidate("ada")
    assert second.get("ada") == "new"
    go.set()
    reader.join()
    assert first.get("ada") == "new" and first.stats.refused == 1


HOLDER = """
import sys, time, cachelab as cl
def load(id):
    print("loading", flush=True)
    time.sleep(float(sys.argv[2]))
    return "theirs"
print(cl.CacheAside(cl.connect(sys.argv[1]), load, ttl=60, prefix="").get("ada"), flush=True)
"""


@pytest.fixture
def holder(server):
    """Start a process that loads "ada" for so many seconds; it is loading when it is returned."""
    started = []

    def start(seconds):
        command = [sys.executable, "-c", HOLDER, server.url, str(seconds)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "loading\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_holder_costs_three_seconds_and_one_load(make_cache, client, holder, together):
    holder(60).kill()
    database, started = Slow(0), time.monotonic()
    cache = make_cache(database.get)
    assert together(10, cache.get, "ada") == ["ada"] * 10
    assert time.monotonic() - started < 6  # twice the promise: machines are noisy
    assert database.loads == ["ada"] and client.get("ada") == '"ada"'


def test_a_holder_that_is_stopped_and_goes_on_stores_what_nobody_invalidated(client, holder):
    process = holder(0.5)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGCONT)
    assert process.stdout.readline() == "theirs\n" and client.get("ada") == '"theirs"'


# Bounds


def test_a_load_that_never_returns_holds_nobody_of_another_process_up(make_cache):
    go = threading.Event()
    stuck, other = make_cache(lambda id: go.wait(60), lease=0.2), make_cache(str, lease=0.2)
    reader = threading.Thread(target=stuck.get, args=("ada",))
    reader.start()
    while not stuck.stats.loads:
        time.sleep(0.001)
    assert other.get("ada") == "ada"
    go.set()
    reader.join()


def test_who_waits_for_a_load_that_never_returns_gets_a_named_error_in_the_end(make_cache):
    go = threading.Event()
    cache = make_cache(lambda id: go.wait(60), max_wait=0.2)
    reader = threading.Thread(target=cache.get, args=("ada",))
    reader.start()
    while not cache.stats.loads:
        time.sleep(0.001)
    with pytest.raises(cl.LoadsBusy, match=r"'ada' was not loaded within 0\.2 s \(max_wait\)"):
        cache.get("ada")
    go.set()
    reader.join()


def test_a_load_that_fans_out_through_a_pool_ends_with_a_named_error(client):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        load = lambda id: pool.submit(cache.get, "part").result() if id == "page" else id  # noqa: E731
        cache = cl.CacheAside(client, load, ttl=60, max_loads=1, max_wait=0.5)
        with pytest.raises(cl.LoadsBusy, match="no room"):
            cache.get("page")
    assert cl.CacheAside(client, load, ttl=60).get("part") == "part"


def test_a_load_of_its_own_id_is_a_named_error_at_once(make_cache, client):
    loads = []
    cache = make_cache(lambda id: loads.append(id) or cache.get(id))
    with pytest.raises(cl.RecursiveLoad, match="'ada' reads 'ada'"):
        cache.get("ada")
    assert loads == ["ada"] and client.dbsize() == 0


def test_two_loads_that_read_each_other_are_a_named_error(make_cache, together):
    both = threading.Barrier(2)
    begun = set()

    def load(id):
        if id not in begun:  # who followed a load that failed may load anew, alone
            begun.add(id)
            both.wait(30)
        return cache.get({"a": "b", "b": "a"}[id])

    cache = make_cache(load)
    ids = iter("ab")
    outcomes = together(2, lambda: cache.get(next(ids)))
    assert {type(outcome) for outcome in outcomes} == {cl.RecursiveLoad}


# Whatever a load raises


class Timeout(BaseException):
    """As gevent's and the like are: no Exception."""


@pytest.mark.parametrize(
    "error",
    [
        LookupError("no"),
        StopIteration("no"),
        Timeout("no"),
        GeneratorExit("no"),
        BaseExceptionGroup("no", [Timeout()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_load_raises_reaches_the_reader_and_leaves_no_lease(client, error):
    def load(id):
        raise error

    cache = cl.CacheAside(client, load, ttl=60)
    with pytest.raises(type(error), match="no"):
        cache.get("ada")
    assert client.dbsize() == 0


def test_a_crowd_gets_exceptions_of_its_own_whose_tracebacks_do_not_grow(make_cache, together):
    crowd = threading.Event()

    def load(id):
        crowd.wait(30)
        raise LookupError(id)

    cache = make_cache(load)
    threading.Timer(0.3, crowd.set).start()
    errors = together(50, cache.get, "ada")
    assert len({id(error) for error in errors}) == 50
    lengths = [len(traceback.extract_tb(error.__traceback__)) for error in errors]
    assert max(lengths) - min(lengths) <= 12  # in one object for all they would add up


def test_an_exception_that_cannot_be_built_from_its_arguments_is_copied_all_the_same(
    make_cache, together
):
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")
            self.two = two

    crowd = threading.Event()

    def load(id):
        crowd.wait(30)
        raise Odd(1, two=2)

    cache = make_cache(load)
    threading.Timer(0.2, crowd.set).start()
    errors = together(10, cache.get, "ada")
    assert {(type(error), str(error), error.two) for error in errors} == {(Odd, "1 2", 2)}


# Who may take whose value


def test_a_load_overtaken_by_an_invalidate_that_failed_is_not_stored(make_cache, server, client):
    rows, entered, go = {"ada": "old"}, threading.Event(), threading.Event()

    def load(id):
        value = rows[id]
        entered.set()
        assert go.wait(30)
        return value

    with Link(server.url) as link:
        mine, other = make_cache(load, url=link.url), make_cache(rows.get)
        reader = threading.Thread(target=mine.get, args=("ada",))
        reader.start()
        assert entered.wait(30)
        link.cut()
        rows["ada"] = "new"
        with pytest.raises(cl.InvalidationPending):
            mine.invalidate("ada")
        link.heal()
        go.set()
        reader.join()
        assert other.get("ada") == "new"


def test_a_read_begun_after_another_process_s_invalidate_joins_no_older_load(make_cache, server):
    rows, entered, go = {"ada": "old"}, threading.Event(), threading.Event()

    def load(id):
        value = rows[id]
        entered.set()
        assert go.wait(30)
        return value

    with Link(server.url) as link:
        mine, other = make_cache(load, url=link.url), make_cache(rows.get)
        link.cut()
        first = threading.Thread(target=mine.get, args=("ada",))
        first.start()
        assert entered.wait(30)
        rows["ada"] = "new"
        other.invalidate("ada")
        later = concurrent.futures.ThreadPoolExecutor(1).submit(mine.get, "ada")
        while not mine.stats.waits:
            time.sleep(0.001)
        go.set()
        assert later.result(30) == "new"
        first.join()


def test_a_read_begun_after_another_process_s_invalidate_gets_no_older_load_s_error(make_cache):
    rows, entered, go = {}, threading.Event(), threading.Event()

    def load(id):
        is_there = id in rows
        entered.set()
        assert go.wait(30)
        if not is_there:
            raise LookupError(id)
        return rows[id]

    mine, other = make_cache(load), make_cache(rows.get)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(mine.get, "ada")
        assert entered.wait(30)
        rows["ada"] = "created"
        other.invalidate("ada")
        later = pool.submit(mine.get, "ada")
        while not mine.stats.waits:
            time.sleep(0.001)
        go.set()
        assert later.result(30) == "created" and isinstance(first.exception(30), LookupError)


def test_a_crowd_whose_leases_vanish_makes_few_loads_and_is_quick(make_cache, client, together):
    loads, all_wait, stop = [], threading.Event(), threading.Event()

    def load(id):
        loads.append(id)
        assert all_wait.wait(30)
        time.sleep(0.05)
        return id

    def evict():
        while not stop.is_set():
            client.delete("ada")
            time.sleep(0.01)

    thread = threading.Thread(target=evict)
    thread.start()
    cache = make_cache(load)
    when_all_wait(cache, 50, all_wait)
    assert together(50, cache.get, "ada") == ["ada"] * 50
    stop.set()
    thread.join()
    assert len(loads) <= 3


def test_eight_caches_mend_one_broken_value_with_one_load(make_cache, client, together):
    database = Slow(0.05)
    caches = [make_cache(database.get) for _ in range(8)]
    client.set("ada", "{")
    turns = iter(caches)
    assert together(8, lambda: next(turns).get("ada")) == ["ada"] * 8
    assert database.loads == ["ada"]


def test_a_key_of_another_type_is_left_alone(make_cache, client, caplog):
    client.rpush("queue", "job")
    cache = make_cache(str.upper)
    for read in (cache.get, lambda id: cache.get_many([id])[id]):
        assert [read("queue"), read("queue")] == ["QUEUE"] * 2
    cache.invalidate("queue")
    assert client.lrange("queue", 0, -1) == ["job"]
    assert len([record for record in caplog.records if "another type" in record.message]) == 1


# Called from anywhere

ANYWHERE = """
import gc, os, signal, sys, threading, time, cachelab as cl
client = cl.connect(sys.argv[1])
cache = cl.CacheAside(client, str.upper, ttl=60, load_many=lambda ids: dict.fromkeys(ids, "v"))
{body}
print("came back")
"""
BODIES = {
    "a finaliser that the collector runs": """
class Session:
    def __init__(self): self.me = self
    def __del__(self): cache.invalidate("a"), cache.get("b"), cache.stats
gc.set_threshold(5)
for n in range(200):
    Session(), cache.get_many([f"k{n}.{i}" for i in range(5)]), cache.get(f"{n}"), cache.stats
""",
    "a signal handler": """
def handler(*_):
    cache.invalidate("a"), cache.get("b"), cache.get("slow"), cache.stats
    signal.setitimer(signal.ITIMER_REAL, 0.001)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
for n in range(150):
    cache.get_many([f"k{n}.{i}" for i in range(5)]), cache.get("slow"), cache.invalidate("slow")
signal.setitimer(signal.ITIMER_REAL, 0)
""",
    "a forked child": """
stop = threading.Event()
def work():
    n = 0
    while not stop.is_set():
        n += 1
        cache.get(f"{threading.get_ident()}.{n}"), cache.stats, cache.invalidate("a")
for _ in range(4): threading.Thread(target=work, daemon=True).start()
for n in range(60):
    if not (child := os.fork()):
        cache.get("b"), cache.get(f"new{n}"), cache.invalidate("a"), cache.stats
        os._exit(0)
    os.waitpid(child, 0)
stop.set()
""",
}


@pytest.mark.parametrize("where", BODIES)
def test_the_cache_may_be_called_from(server, where):
    code = ANYWHERE.format(body=BODIES[where])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, server.url],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.stdout == "came back\n", run.stderr[-2000:]


def test_a_lock_that_is_not_re_entrant_hangs_in_a_handler():
    code = """if True:
    import signal, threading
    lock = threading.Lock()
    signal.signal(signal.SIGALRM, lambda *_: lock.acquire())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    with lock:
        while True: pass
    """
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], timeout=2)


@pytest.mark.parametrize("error", [TimeoutError, RuntimeError, KeyboardInterrupt])
def test_a_time_limit_that_fires_while_redis_is_waited_for_reaches_its_owner(error):
    def limit(*_):
        raise error("too long")

    with cl.Server() as frozen:
        cache = cl.CacheAside(cl.connect(frozen.url), str, ttl=60)
        cache.get("ada")
        frozen.freeze()
        before = signal.signal(signal.SIGALRM, limit)
        try:
            with pytest.raises(error, match="too long"):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                cache.get("ada")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert cache.stats.errors == 0 and cache.stats.breaker == "closed"


def test_a_time_limit_that_fires_in_a_load_is_raised_in_no_other_thread(client):
    entered = threading.Event()

    def limit(*_):
        raise TimeoutError("too long")

    def load(id):
        if not entered.is_set():
            entered.set()
            while not cache.stats.waits:
                time.sleep(0.001)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            time.sleep(30)
        return "loaded"

    cache = cl.CacheAside(client, load, ttl=60)
    before = signal.signal(signal.SIGALRM, limit)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        follower = pool.submit(lambda: entered.wait(30) and cache.get("ada"))
        try:
            with pytest.raises(TimeoutError, match="too long"):
                cache.get("ada")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert follower.result(30) == "loaded"


# Pending deletes, demoted servers, shared breakers, crowds


def test_a_pending_delete_is_sent_within_a_second_of_redis_return_by_itself(make_cache, server):
    rows = {"ada": "old"}
    with Link(server.url) as link:
        mine, other = make_cache(rows.get, url=link.url), make_cache(rows.get)
        mine.get("ada")
        link.cut()
        rows["ada"] = "new"
        with pytest.raises(cl.InvalidationPending):
            mine.invalidate("ada")
        assert other.get("ada") == "old"
        link.heal()
        until = time.monotonic() + 5
        while other.get("ada") == "old" and time.monotonic() < until:
            time.sleep(0.02)
        assert other.get("ada") == "new"


def test_a_demoted_server_s_connections_are_dropped(make_cache, caplog):
    with cl.Server() as server, cl.Server() as primary:
        client = cl.connect(server.url)
        cache = make_cache(str, url=server.url)
        cache.get("ada")
        before = client.info("stats")["total_connections_received"]
        client.replicaof("127.0.0.1", 1)
        for n in range(5):
            assert cache.get(f"u{n}") == f"u{n}"
        assert client.info("stats")["total_connections_received"] > before
        assert "lead to the primary" in caplog.text
        del primary


def test_caches_on_one_server_share_its_breaker(make_cache):
    with cl.Server() as server:
        caches = [make_cache(str, url=server.url, patient=False, prefix=f"{n}:") for n in range(3)]
        server.freeze()
        while caches[0].stats.breaker == "closed":
            caches[0].get("ada")
        assert [cache.stats.breaker for cache in caches] == ["open"] * 3


def test_ten_thousand_hits_at_once_are_ten_thousand_hits(server, client):
    aclient = cl.connect_async(server.url)

    async def load(id):
        return id

    async def main():
        cache = cl.AsyncCacheAside(aclient, load, ttl=60)
        try:
            await cache.get("ada")
            values = await asyncio.gather(*(cache.get("ada") for _ in range(10_000)))
        finally:
            await aclient.connection_pool.disconnect()
        assert values == ["ada"] * 10_000
        return cache.stats

    def all_hit() -> bool:
        stats = asyncio.run(main())
        assert stats.loads <= 101
        return stats.errors == 0 and stats.breaker == "closed"

    assert at_best(all_hit)


def test_fifty_thousand_ids_are_all_cached(make_cache, client):
    ids = [f"u{n}" for n in range(50_000)]
    cache = make_cache(str, load_many=lambda ids: dict.fromkeys(ids, 1))
    assert cache.get_many(ids) == dict.fromkeys(ids, 1)
    assert client.dbsize() == 50_000 and cache.stats.errors == 0


# Observed, and read


def test_an_observer_is_told_of_each_load_and_a_hit_runs_the_same_code(make_cache, client):
    told = []
    cache = make_cache(lambda id: {"nobody": None}.get(id, id), max_value_bytes=10)
    observe = getattr(cache, "cache", cache).observe
    observe(told.append)
    for id in ("ada", "nobody", "x" * 20):
        cache.get(id)
    assert [dict(load.ends) for load in told] == [
        {"ada": "stored"},
        {"nobody": "stored"},
        {"x" * 20: "too large"},
    ]
    assert all(load.seconds >= 0 and load.ids == tuple(load.ends) for load in told)


def lines(call):
    """Return the lines of the package that a call runs."""
    root, seen = os.path.dirname(cl.__file__), []

    def note(frame, event, argument):
        if frame.f_code.co_filename.startswith(root):
            seen.append((frame.f_code.co_filename, frame.f_lineno))
        return note

    sys.settrace(note)
    try:
        call()
    finally:
        sys.settrace(None)
    return seen


def test_a_hit_runs_the_same_lines_with_an_observer_and_without(client):
    cache = cl.CacheAside(client, str, ttl=60)
    cache.get("ada"), cache.get("ada")
    without = lines(lambda: cache.get("ada"))
    cache.observe(print)
    assert lines(lambda: cache.get("ada")) == without
    assert lines(lambda: cache.get("new")) != without


def crossings(call):
    """Return the files of the package that a call crosses, and how often it goes on in another."""
    root, files = os.path.dirname(cl.__file__), []

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            files.append(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return len(set(files)), sum(one != other for one, other in zip(files, files[1:], strict=False))


def test_a_miss_crosses_seven_files_in_thirty_moves_and_a_hit_five_in_fourteen(client):
    cache = cl.CacheAside(client, str, ttl=60, prefix="read:")
    cache.get("warm"), cache.get("up")
    files, moves = crossings(lambda: cache.get("new"))
    assert files <= 7 and moves <= 30
    files, moves = crossings(lambda: cache.get("new"))
    assert files <= 5 and moves <= 14
    assert crossings(lambda: cl.UserDatabase(latency=0).close())[1] > 0  # it does count
