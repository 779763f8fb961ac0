"""Warming, adaptive expiry, prefetch: what they do on a real server and count."""

import asyncio
import os
import random
import threading
import time

import pytest
from conftest import PATIENT, Awaited, disconnected

import cachelab as cl
from cachelab import smart

KINDS = {
    "sync": (smart.Prefetcher, smart.warm),
    "async": (smart.AsyncPrefetcher, smart.warm_async),
}


class Origin:
    """Rows that count their loads; those of `slow` can be held."""

    def __init__(self):
        self.loads, self.go = [], threading.Event()
        self.go.set()
        self.failing = False

    def load(self, id):
        self.loads.append(id)
        assert self.go.wait(PATIENT)
        if self.failing:
            raise OSError("the database is away")
        return None if id == "nobody" else id.upper()


@pytest.fixture
def origin():
    return Origin()


def warmed(cache, *arguments, **options):
    """Warm a cache of either flavour."""
    if isinstance(cache, Awaited):
        return cache.run(smart.warm_async(cache.cache, *arguments, **options))
    return smart.warm(cache, *arguments, **options)


def prefetching(cache, *arguments, **options):
    """Return the get of a prefetcher on a cache of either flavour, and the prefetcher."""
    if isinstance(cache, Awaited):
        prefetcher = smart.AsyncPrefetcher(cache.cache, *arguments, **options)
        return lambda *words: cache.run(prefetcher.get(*words)), prefetcher
    prefetcher = smart.Prefetcher(cache, *arguments, **options)
    return prefetcher.get, prefetcher


def until(holds):
    """Wait for what happens apart."""
    end = time.monotonic() + PATIENT
    while not holds():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.002)


class After:
    """A predictor that knows what comes after each id."""

    def __init__(self, **after):
        self.after = after

    def next(self, id, stream):
        return self.after.get(id)


def read_log(counts, **options):
    log = smart.PopularityLog(**options)
    for id, count in counts.items():
        for _ in range(count):
            log.read(id)
    return log


# The log


def test_the_log_tells_what_is_read_most():
    log = read_log({"ada": 3, "bob": 5, "eve": 1})
    assert log.top(2) == ["bob", "ada"] and log.reads("eve") == pytest.approx(1, abs=0.01)


def test_a_read_is_worth_half_after_its_half_life():
    now = 0.0
    log = smart.PopularityLog(half_life=10, clock=lambda: now)
    for _ in range(4):
        log.read("old")
    now = 30.0
    log.read("new")
    assert log.reads("old") == pytest.approx(0.5) and log.top(1) == ["new"]


def test_the_log_is_bounded_and_keeps_whoever_is_read_often():
    log, draw = smart.PopularityLog(size=10), random.Random(1)
    for number in range(5000):
        log.read(f"once-{number}" if draw.random() < 0.8 else "often")
    assert log.top(1) == ["often"] and len(log.counts) <= 10 and log.stats.ids <= 20


def test_a_log_goes_on_from_the_counts_of_another():
    before = read_log({"ada": 3, "bob": 5})
    assert smart.PopularityLog(counts=before.counts).top(2) == ["bob", "ada"]


def test_a_log_that_is_switched_off_counts_nothing():
    log = read_log({"ada": 3}, enabled=False)
    assert log.top(5) == [] and log.stats.reads == 0


def test_a_get_is_watched_in_either_flavour(make_cache, origin):
    log, cache = smart.PopularityLog(), make_cache(origin.load)
    get = log.watching(cache.get)
    assert get("ada") == get("ada") == "ADA"
    assert log.reads("ada") == pytest.approx(2, abs=0.01)


def test_counts_and_their_moment_go_together_where_two_threads_write_them_anew():
    now, others = 0.0, []

    def clock():
        if others:  # another thread comes in here
            others.pop()()
        return now

    log = smart.PopularityLog(half_life=1, clock=clock)
    for _ in range(8):
        log.read("often")
    now = 10.0
    others += [log._prune, int]  # at the second look at the clock
    log._prune()
    assert not others and log.reads("often") == pytest.approx(8 / 2**10)


# Warming


def test_warming_loads_the_most_popular_first_and_no_more_than_asked(make_cache, origin):
    cache, log = make_cache(origin.load), read_log({"ada": 1, "bob": 3, "eve": 2})
    done = warmed(cache, log, count=2, rate=1000)
    assert set(origin.loads) == {"bob", "eve"} and (done.asked, done.loaded, done.ended) == (
        2,
        2,
        "all",
    )
    assert cache.stats.hits + cache.stats.misses == 0  # it is nobody's read


def test_warming_loads_nothing_that_is_cached(make_cache, origin):
    cache, log = make_cache(origin.load), read_log({"ada": 1, "bob": 2})
    cache.get("bob")
    assert warmed(cache, log, rate=1000).loaded == 1 and origin.loads == ["bob", "ada"]


def test_what_warming_loaded_is_useful_once_it_is_read(make_cache, origin):
    cache, log = make_cache(origin.load), read_log({"ada": 1, "bob": 2})
    warmed(cache, log, rate=1000)
    log.watching(cache.get)("ada")
    stats = log.stats
    assert (stats.warmed, stats.useful, stats.wasted) == (2, 1, 1)


def test_what_is_warmed_twice_and_never_read_is_wasted_twice(make_cache, origin):
    cache, log = make_cache(origin.load), read_log({"ada": 1})
    for _ in range(2):
        cache.invalidate("ada")
        warmed(cache, log, rate=1000)
    log.watching(cache.get)("ada")
    assert (log.stats.warmed, log.stats.useful, log.stats.wasted) == (2, 1, 1)


def test_a_log_remembers_a_bounded_number_of_warmed_ids():
    log = smart.PopularityLog(size=10)
    for number in range(1000):
        log.note_warmed(f"id-{number}")
    assert len(log._waiting) == 20 and log.stats.wasted == 1000


@pytest.mark.parametrize("bad", ["", "x" * 600, 5])
def test_warming_passes_over_what_readers_were_refused(make_cache, origin, client, bad):
    cache, log = make_cache(origin.load), smart.PopularityLog()
    get = log.watching(cache.get)
    for _ in range(2):
        with pytest.raises((TypeError, ValueError)):
            get(bad)
    log.read("ada")
    assert warmed(cache, log, rate=1000).loaded == 1
    assert log.top(1) == [bad] and origin.loads == ["ada"] and client.keys() == ["ada"]


def test_a_cache_of_the_other_flavour_is_refused(client, aclient):
    log, one = smart.PopularityLog(), cl.CacheAside(client, str, ttl=60)
    other = cl.AsyncCacheAside(aclient, asyncio.sleep, ttl=60)
    for refused in (
        lambda: smart.warm(other, log),
        lambda: asyncio.run(smart.warm_async(one, log)),
        lambda: smart.Prefetcher(other),
        lambda: smart.AsyncPrefetcher(one),
    ):
        with pytest.raises(TypeError, match="cache must be of type"):
            refused()


def test_warming_keeps_to_its_rate(make_cache, origin):
    cache, log = make_cache(origin.load), read_log({f"id-{n}": 1 for n in range(30)})
    assert warmed(cache, log, rate=100).seconds > 0.2
    cache = make_cache(origin.load, prefix="fast:")
    assert warmed(cache, log, rate=1e6).loaded == 30  # the control waits for nothing


def test_warming_ends_when_its_time_is_over(make_cache, origin):
    cache, log = make_cache(origin.load), read_log({f"id-{n}": 1 for n in range(100)})
    done = warmed(cache, log, rate=20, within=0.2)
    assert done.ended == "time" and done.asked < 50


def test_warming_leaves_a_database_alone_that_fails(make_cache, origin):
    cache, log = make_cache(origin.load), read_log({f"id-{n}": 1 for n in range(100)})
    origin.failing = True
    done = warmed(cache, log, rate=20)
    assert done.ended == "failures" and done.failed == len(origin.loads) < 20


def test_warming_loads_nothing_that_could_not_be_kept(make_cache, origin):
    with cl.Server() as away:
        cache = make_cache(origin.load, away.url, patient=False)
        away.kill()
        while cache.stats.breaker == "closed":
            cache.get("eve")
        origin.loads.clear()
        assert warmed(cache, read_log({"ada": 1})).ended == "failures" and origin.loads == []


def test_where_one_shard_is_away_what_others_hold_is_warmed_and_prefetched():
    with cl.Cluster(primaries=3, replicas=0) as nodes:
        cache = cl.CacheAside(cl.connect(nodes.url), str.upper, ttl=60, prefix="")
        prefetcher = smart.Prefetcher(
            cache, After(**{f"a{n}": f"b{n}" for n in range(20)}), budget=9
        )
        for n in range(20):
            cache.get(f"a{n}")
        ids = [f"c{n}" for n in range(20)]
        shards = cache.core.gates.split(ids)
        nodes.nodes[0].freeze()
        until(lambda: [cache.get(id) for id in ids] and cache.stats.breaker == "open")
        mine = next(part for gate, part in shards.items() if gate.breaker.state == "open")
        done = smart.warm(cache, read_log({f"d{n}": 1 for n in range(20)}), rate=1000)
        assert 0 < done.loaded < 20 and done.loaded + done.failed == done.asked == 20
        assert smart.warm(cache, read_log(dict.fromkeys(mine, 1))).ended == "failures"
        for n in range(20):
            prefetcher.get(f"a{n}")
        until(lambda: prefetcher.stats.prefetches + prefetcher.stats.dropped == 20)
        assert 0 < prefetcher.stats.prefetches and 0 < prefetcher.stats.dropped
        nodes.nodes[0].thaw()


def test_what_is_warmed_together_expires_apart(make_cache, origin, client):
    cache = make_cache(origin.load, ttl=1000, jitter=0)
    log = read_log({f"id-{n}": 1 for n in range(40)})
    warmed(cache, log, rate=10_000, spread=0.5)
    lives = [client.ttl(f"id-{n}") for n in range(40)]
    assert 490 <= min(lives) < 650 and 850 < max(lives) <= 1000
    cache.get("plain")
    assert client.ttl("plain") > 990  # the control: readers' values have the cache's own jitter


@pytest.mark.parametrize("bad", [{"count": -1}, {"rate": 0}, {"within": 0}, {"spread": 2}])
def test_bad_arguments_of_warming_are_refused(client, bad):
    cache = cl.CacheAside(client, str, ttl=60)
    with pytest.raises(ValueError, match=next(iter(bad))):
        smart.warm(cache, smart.PopularityLog(), **bad)


# Adaptive expiry


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lives(changes, seconds=2000, **options):
    """Return the last time to live of rows, which change every so many seconds."""
    clock = Clock()
    adaptive = smart.AdaptiveTTL(1, 100, clock=clock, **options)
    due, ttl = dict.fromkeys(changes, 0.0), {}
    while (id := min(due, key=due.get)) and due[id] < seconds:
        clock.now = due[id]
        ttl[id] = adaptive(id, str(int(clock.now / changes[id])))
        due[id] += ttl[id] + 0.01
    return ttl, adaptive


def test_what_changes_often_lives_shorter():
    ttl, adaptive = lives({"calm": 1000, "busy": 30})
    assert ttl["busy"] < ttl["calm"] / 2
    assert adaptive.rate("busy") == pytest.approx(1 / 30, rel=0.5)


def test_the_time_to_live_falls_with_the_root_of_the_rate():
    ttl, adaptive = lives({"calm": 400, "busy": 40}, seconds=8000, memory=5000)
    rates = adaptive.rate("busy") / adaptive.rate("calm")
    assert ttl["calm"] / ttl["busy"] == pytest.approx(rates**0.5, rel=0.1)


def test_a_time_to_live_stays_within_its_bounds():
    ttl, adaptive = lives({"never": 1e9, "always": 0.1}, staleness=0.05)
    assert ttl["always"] == 1 and 1 < ttl["never"] <= 100
    assert adaptive.stats.at_low > 0 and adaptive.stats.changed > 0


def stale_share(ttls, rates, seconds=4000, seed=0):
    """Return the share of hits on old values, of rows that change at random and are read alike."""
    draw, stale, hits = random.Random(seed), 0, 0
    clock = Clock()
    give = ttls(clock)
    for id, rate in rates.items():
        changes, at = [], 0.0
        while (at := at + draw.expovariate(rate)) < seconds:
            changes.append(at)
        at = 0.0
        rates[id] = changes
    due = dict.fromkeys(rates, 0.0)
    while (id := min(due, key=due.get)) and due[id] < seconds:
        clock.now = now = due[id]
        ttl = give(id, str(sum(change <= now for change in rates[id])))
        due[id] = now + ttl
        first = min((change for change in rates[id] if change > now), default=seconds)
        if now > seconds / 2:
            hits, stale = hits + ttl, stale + max(0.0, due[id] - first)
    return stale / hits


def test_no_more_hits_are_stale_than_was_asked_for():
    rates = {f"id-{n}": 0.001 * 1.1**n for n in range(40)}
    adaptive = stale_share(lambda clock: smart.AdaptiveTTL(1, 500, 0.05, clock=clock), dict(rates))
    assert 0.02 < adaptive < 0.07
    assert stale_share(lambda clock: lambda id, text: 100, dict(rates)) > 0.1  # the control


def test_an_id_that_is_read_more_gets_less_time():
    ttl, _ = lives({"read": 50, "rare": 50}, reads={"read": 100.0, "rare": 1.0}.__getitem__)
    assert ttl["read"] < ttl["rare"] / 4


@pytest.mark.parametrize("told", [float("nan"), float("inf"), 1e308, -1, "often", None])
def test_reads_that_make_no_sense_leave_an_adaptive_expiry_as_it_is_without(told):
    changes = {"calm": 1000, "busy": 30}
    ttl, adaptive = lives(changes, reads=lambda id: told)
    assert adaptive.stats.loads > 10 and all(1 <= one <= 100 for one in ttl.values())
    if told != 1e308:
        assert ttl == lives(changes)[0]


def test_reads_that_fail_lose_nothing_of_what_is_known(caplog):
    def reads(id):
        raise OSError("the log is away")

    _, adaptive = lives({"busy": 30}, reads=reads)
    assert adaptive.rate("busy") == pytest.approx(1 / 30, rel=0.5)
    assert len(caplog.records) == 1 and "the log is away" in caplog.text


def test_adaptive_expiry_that_is_switched_off_gives_every_value_the_most():
    ttl, adaptive = lives({"calm": 1000, "busy": 10}, enabled=False)
    assert set(ttl.values()) == {100} and adaptive.stats.loads == 0


def test_an_adaptive_expiry_knows_a_bounded_number_of_ids():
    adaptive = smart.AdaptiveTTL(1, 100, most_ids=50)
    for number in range(500):
        adaptive(f"id-{number}", "1")
    assert adaptive.stats.ids == 50


def test_a_cache_keeps_what_changes_for_less_time_than_what_does_not(make_cache, client):
    numbers = iter(range(1000))
    clock = Clock()
    adaptive = smart.AdaptiveTTL(1, 300, clock=clock)
    cache = make_cache(
        lambda id: next(numbers) if id == "busy" else id, ttl=300, jitter=0, expiry=adaptive
    )
    for _ in range(30):
        clock.now += 60
        for id in ("calm", "busy"):
            cache.invalidate(id)
            cache.get(id)
    assert 0 < client.pttl("busy") < client.pttl("calm") / 2
    assert adaptive.stats.loads == 60 and adaptive.stats.changed == 29


@pytest.mark.parametrize(
    "bad", [{"low": 0}, {"high": 0.5}, {"staleness": 0}, {"memory": 0}, {"reads": 3}]
)
def test_bad_arguments_of_adaptive_expiry_are_refused(bad):
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        smart.AdaptiveTTL(**{"low": 1, "high": 100} | bad)


class Slow:
    async def __call__(self, id, text):
        return 1.0


@pytest.mark.parametrize("bad", [3, "ttl", asyncio.sleep, Slow()])
def test_an_expiry_that_is_no_plain_function_is_refused(client, bad):
    with pytest.raises(TypeError, match="expiry must be a plain function"):
        cl.CacheAside(client, str, ttl=60, expiry=bad)


# Predictions


def guesses(markov, ids, stream=""):
    return [markov.next(id, stream) for id in ids]


def test_what_followed_twice_is_expected_a_third_time():
    assert guesses(smart.Markov(), "abxaby") == [None] * 6
    assert guesses(smart.Markov(), "ababa")[-1] == "b"


def test_an_id_that_follows_by_chance_is_not_expected():
    draw = random.Random(1)
    ids = [draw.choice("abcdefghij") for _ in range(5000)]
    made = guesses(smart.Markov(), ids)
    assert sum(guess is not None for guess in made) < 50
    eager = guesses(smart.Markov(confidence=0.0), ids)  # the control
    assert sum(guess is not None for guess in eager) > 2500


def test_two_reads_tell_what_one_does_not():
    ids = "axbcxd"
    assert guesses(smart.Markov(1), ids * 30)[-5] is None  # x: b or d
    assert guesses(smart.Markov(2), ids * 30)[-5] == "b"


@pytest.mark.parametrize(("are_named", "low", "high"), [(True, 0.9, 1.0), (False, 0.0, 0.5)])
def test_streams_that_mix_are_told_apart(are_named, low, high):
    markov, draw, right = smart.Markov(), random.Random(2), 0
    at, expected = [0] * 10, [None] * 10
    for _ in range(2000):
        stream = draw.randrange(10)
        at[stream] = (at[stream] + 1) % 7
        id = (stream, at[stream])
        right += expected[stream] == id
        expected[stream] = markov.next(id, stream if are_named else "")
    assert low <= right / 2000 <= high


def test_what_a_markov_remembers_is_bounded():
    markov = smart.Markov(2, contexts=20, streams=5)
    for number in range(1000):
        markov.next(f"id-{number}", number % 50)
    assert len(markov._after) <= 20 and len(markov._last) <= 5


def test_a_new_habit_replaces_an_old_one():
    markov = smart.Markov()
    guesses(markov, "ab" * 200)
    assert "c" in guesses(markov, "ac" * 100)


# Prefetch


def test_what_is_expected_next_is_loaded_before_it_is_asked_for(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a="b"), budget=1)
    assert get("a") == "A"
    until(lambda: prefetcher.stats.prefetches)
    assert get("b") == "B" and origin.loads == ["a", "b"] and cache.stats.hits == 1
    assert prefetcher.stats.useful == 1 and prefetcher.stats.wasted == 0


def test_without_a_prediction_a_reader_waits_for_each_load(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(), budget=1)
    assert (get("a"), get("b")) == ("A", "B") and cache.stats.misses == 2
    assert prefetcher.stats.prefetches == 0


def test_no_reader_waits_for_a_prefetch_of_another_id(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a="b"), budget=1)
    cache.get("c")
    get("a")
    until(lambda: prefetcher.stats.prefetches)
    assert cache.get("c") == "C"
    origin.go.clear()
    get, _ = prefetching(cache, After(c="slow"), budget=1)
    try:
        assert get("c") == get("c") == "C"
    finally:
        origin.go.set()


def test_a_reader_who_comes_early_joins_the_prefetch(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a="b"), budget=1)
    cache.get("a")
    cache.get("c")
    origin.go.clear()
    get("a")
    until(lambda: "b" in origin.loads)
    threading.Timer(0.05, origin.go.set).start()
    assert get("b") == "B" and origin.loads.count("b") == 1
    until(lambda: prefetcher.stats.useful == 1)


def test_prefetching_wastes_no_more_than_its_budget(make_cache, origin):
    cache = make_cache(origin.load)
    after = After(**{f"id-{n}": f"wrong-{n}" for n in range(40)})
    get, prefetcher = prefetching(cache, after, budget=0.1)
    for n in range(40):
        get(f"id-{n}")
    until(lambda: prefetcher.stats.prefetches == 4)
    assert prefetcher.stats.over_budget == 36 and len(origin.loads) == 44


def test_a_prediction_that_is_cached_costs_no_load(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a="b"), budget=1)
    cache.get("b")
    get("a")
    until(lambda: prefetcher.stats.cached)
    assert origin.loads == ["b", "a"] and prefetcher.stats.prefetches == 0


def test_a_prediction_that_was_found_in_the_cache_is_not_looked_for_at_once():
    clock = Clock()
    ledger = smart.Ledger(budget=2, lives=60, clock=clock)
    ledger.missed("a")
    assert ledger.may("b")
    ledger.spared("b")
    assert not ledger.may("b") and ledger.cached == 2
    clock.now = 2.0
    assert ledger.may("b")


def test_a_prefetch_that_fails_is_wasted_and_reaches_no_reader(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a="b"), budget=1)
    cache.get("a")
    origin.failing = True
    assert get("a") == "A"
    until(lambda: prefetcher.stats.wasted == 1)


def test_a_prefetch_that_was_invalidated_is_never_read(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a="b"), budget=1)
    cache.get("a")
    origin.go.clear()
    get("a")
    until(lambda: "b" in origin.loads)
    cache.invalidate("b")
    origin.go.set()
    until(lambda: prefetcher.stats.prefetches)
    assert get("b") == "B" and origin.loads.count("b") == 2
    assert prefetcher.stats.useful == 0


def test_a_predictor_that_fails_fails_no_read(make_cache, origin):
    class Broken:
        def next(self, id, stream):
            raise RuntimeError("no idea")

    get, prefetcher = prefetching(make_cache(origin.load), Broken())
    assert get("a") == "A" and prefetcher.stats.predicted == 0


@pytest.mark.parametrize("guess", [["b"], 5, "", "x" * 600])
def test_what_cannot_be_an_id_is_no_prediction(make_cache, origin, client, guess):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a=guess, c="d"), budget=9)
    assert get("a") == "A" and prefetcher.stats.predicted == 0
    get("c")
    until(lambda: prefetcher.stats.prefetches)  # the control
    assert origin.loads == ["a", "c", "d"]


def test_what_no_reader_waited_for_earns_no_prefetch(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a="b"), budget=0.1)
    _, other = prefetching(cache, After(), budget=0.1)
    warmed(cache, read_log({f"id-{n}": 1 for n in range(20)}), rate=10_000)
    get("a")
    assert prefetcher.stats.over_budget == 1 and len(origin.loads) == 21
    for n in range(9):
        cache.get(f"read-{n}")
    get("a")  # the control: ten readers waited
    until(lambda: prefetcher.stats.prefetches)
    assert other._prefetches._ledger._left == pytest.approx(1)


def test_what_is_remembered_of_prefetches_is_bounded(monkeypatch):
    monkeypatch.setattr("cachelab.smart.prefetch.MOST_WAITING", 10)
    ledger = smart.Ledger(budget=1, lives=1000)
    for n in range(30):
        ledger.missed("a")
        assert ledger.may(f"id-{n}")
        ledger.loaded(f"id-{n}")
    assert len(ledger._waiting) == 10 and ledger.wasted == 20


def test_a_prefetch_whose_event_loop_ends_is_made_in_the_next(aclient, client):
    held = [True]

    async def load(id):
        await asyncio.sleep(PATIENT if id == "b" and held[0] else 0)
        return id

    cache = cl.AsyncCacheAside(aclient, load, ttl=60, prefix="")
    prefetcher = smart.AsyncPrefetcher(cache, After(a="b"), budget=1, at_once=1)

    async def read(done):
        await prefetcher.get("a")
        await asyncio.to_thread(until, done)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:  # as asyncio.run does
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await disconnected(aclient)

    asyncio.run(read(lambda: cache.stats.loads == 2))
    assert prefetcher.stats.dropped == 1
    held[0] = False
    client.delete("a", "b")
    asyncio.run(read(lambda: prefetcher.stats.prefetches == 1))
    assert client.get("b") == '"b"'


def test_a_prefetch_that_is_cancelled_before_it_begins_keeps_no_place(aclient, run_async):
    async def load(id):
        return id

    cache = cl.AsyncCacheAside(aclient, load, ttl=60, prefix="")
    prefetcher = smart.AsyncPrefetcher(cache, After(a="b"), budget=1, at_once=1)

    async def read():
        await prefetcher.get("a")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)
        assert prefetcher.stats.dropped == 1
        await prefetcher.get("a")
        await asyncio.to_thread(until, lambda: prefetcher.stats.prefetches)

    run_async(read())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_prefetches_what_its_parent_was_loading(client, origin):
    cache = cl.CacheAside(client, origin.load, ttl=60, prefix="")
    prefetcher = smart.Prefetcher(cache, After(a="b"), budget=1)
    cache.get("a")
    origin.go.clear()
    prefetcher.get("a")
    until(lambda: "b" in origin.loads)
    child = os.fork()
    if not child:
        try:
            origin.go.set()
            client.delete("b")
            prefetcher.get("a")
            until(lambda: prefetcher.stats.prefetches)
            os._exit(client.get("b") != '"B"')
        finally:  # whatever it raised, it is no test run
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    origin.go.set()
    until(lambda: prefetcher.stats.prefetches)


def test_a_prefetch_whose_thread_ends_is_dropped(client):
    def load(id):
        if id == "b":
            raise SystemExit
        return id

    cache = cl.CacheAside(client, load, ttl=60, prefix="")
    prefetcher = smart.Prefetcher(cache, After(a="b"), budget=1)
    prefetcher.get("a")
    until(lambda: prefetcher.stats.dropped == 1)
    assert not prefetcher._prefetches._ledger.under_way


def test_a_prefetcher_that_is_switched_off_is_the_cache_alone(make_cache, origin):
    cache = make_cache(origin.load)
    get, prefetcher = prefetching(cache, After(a="b"), budget=1, enabled=False)
    assert get("a") == "A" and prefetcher.stats.reads == 0
    prefetcher.enabled = True
    assert get("a") == "A" and prefetcher.stats.reads == 1


@pytest.mark.parametrize("bad", [{"budget": -1}, {"at_once": 0}, {"predictor": 3}])
def test_bad_arguments_of_a_prefetcher_are_refused(client, bad):
    cache = cl.CacheAside(client, str, ttl=60)
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        smart.Prefetcher(cache, **bad)


def test_a_prefetch_that_expires_unread_is_wasted():
    clock = Clock()
    ledger = smart.Ledger(budget=1, lives=10, clock=clock)
    ledger.missed("a")
    assert ledger.may("b")
    ledger.loaded("b")
    clock.now = 11.0
    ledger.read("b")
    assert (ledger.useful, ledger.wasted) == (0, 1)


def test_a_prefetch_that_was_evicted_before_its_read_is_wasted():
    ledger = smart.Ledger(budget=1, lives=10)
    ledger.missed("a")
    assert ledger.may("b")
    ledger.loaded("b")
    ledger.missed("b")
    ledger.read("b")
    assert (ledger.useful, ledger.wasted) == (0, 1)


def test_the_price_of_a_load_keeps_staleness_where_what_changes_most_is_read_most():
    clock, log_rate, draw = Clock(), {}, random.Random(3)
    rates = {f"id-{n}": 0.0005 * 1.25**n for n in range(20)}
    log_rate.update({id: 300 * rate for id, rate in rates.items()})
    shares = {}
    for name, reads in (("known", log_rate.__getitem__), ("unknown", None)):
        adaptive, due = smart.AdaptiveTTL(1, 500, 0.05, reads=reads, clock=clock), {}
        versions, hits, stale = dict.fromkeys(rates, 0), 0.0, 0.0
        due = dict.fromkeys(rates, 0.0)
        while (id := min(due, key=due.get)) and due[id] < 6000:
            clock.now = due[id]
            ttl = adaptive(id, str(versions[id]))
            first = draw.expovariate(rates[id])
            versions[id] += first < ttl
            due[id] += ttl + 1 / log_rate[id]
            if clock.now > 3000:
                hits += ttl * log_rate[id]
                stale += max(0.0, ttl - first) * log_rate[id]
        shares[name] = stale / hits
        clock.now = 0.0
    assert shares["known"] < 0.07 < shares["unknown"]
