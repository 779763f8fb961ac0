"""Trends: no hit lost, the top ten exact, what was popular gives way, and buckets that expire.

The common recipe counts everything in one sorted set, for ever.
"""

import multiprocessing
import threading
from collections import Counter

import pytest

import cachelab as cl
from cachelab.apps import trending
from cachelab.apps.trending import AsyncTrending, Trending

WRITERS, TOPICS = 8, 100


@pytest.fixture
def patient(server, client):
    """The client of a busy machine: no call of a crowd runs out of time."""
    return cl.connect(server.url, timeout=30)


@pytest.fixture
def make(patient):
    def make(**options):
        return Trending(patient, **{"refresh": 0} | options)

    return make


@pytest.fixture
def clock(client, monkeypatch):
    """Set the clock that the scripts see, in seconds; the real one plays no part."""
    for name in ("COUNT", "TOP"):
        script = getattr(trending, name)
        fake = script.replace("redis.call('TIME')", "{redis.call('GET', 'clock'), 0}")
        assert fake != script
        monkeypatch.setattr(trending, name, fake)
    client.set("clock", 10**9)
    return lambda seconds: client.incrby("clock", seconds)


def names(trends) -> list[str]:
    return [one.topic for one in trends]


def hits_of(writer: int) -> Counter:
    """Return what one of the writers counts: the topics' sums are all different."""
    return Counter({f"topic-{n}": n + writer % 2 for n in range(1, TOPICS + 1)})


def write(url, begin, writers):
    trends = Trending(cl.connect(url, timeout=30))

    def one(counts):
        for topic, count in counts.items():
            trends.hit(topic, count)

    threads = [threading.Thread(target=one, args=(hits_of(n),)) for n in writers]
    begin.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_top_ten_are_exact_under_eight_writers_in_two_processes(server, client, make):
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(2)
    shares = range(WRITERS // 2), range(WRITERS // 2, WRITERS)
    processes = [context.Process(target=write, args=(server.url, begin, s)) for s in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    total = sum((hits_of(n) for n in range(WRITERS)), Counter())
    found = make().top(TOPICS)
    assert names(found) == [topic for topic, _ in total.most_common()]
    assert make().top() == found[:10]
    scores = {float(client.zscore(key, "topic-100") or 0) for key in client.keys()}
    assert sum(scores) == total["topic-100"]  # in one bucket, or two if it ended meanwhile


class Recipe:
    """As vendors' examples have it: a leaderboard is trimmed after each hit."""

    def __init__(self, client, most):
        self.client, self.most = client, most

    def hit(self, topic, meanwhile=lambda: None):
        self.client.zincrby("trending_topics", 1, topic)
        size = self.client.zcard("trending_topics")
        meanwhile()
        if size > self.most:
            self.client.zpopmin("trending_topics", size - self.most)


def test_a_leaderboard_trimmed_by_a_count_that_is_old_has_too_few(client, together):
    recipe, all_have_counted = Recipe(client, 100), threading.Barrier(WRITERS)
    for n in range(100):
        recipe.hit(f"topic-{n}")
    topics = iter(range(100, 100 + WRITERS))
    turn = threading.Lock()

    def one():
        with turn:
            topic = f"topic-{next(topics)}"
        client.zincrby("trending_topics", 5, topic)
        all_have_counted.wait()
        recipe.hit(topic, all_have_counted.wait)

    assert together(WRITERS, one) == [None] * WRITERS
    assert client.zcard("trending_topics") < 95


def test_a_newcomer_rises_though_it_begins_last_and_past_a_trimmed_board_it_never_does(
    make, client
):
    trends, recipe = make(), Recipe(client, 10)
    for name in [f"old-{n}" for n in range(10)]:
        trends.hit(name, 2), recipe.hit(name), recipe.hit(name)
    for _ in range(5):
        trends.hit("new"), recipe.hit("new")
    assert names(trends.top(1)) == ["new"]
    assert client.zscore("trending_topics", "new") is None


def test_what_was_popular_gives_way_and_in_one_sorted_set_it_never_does(make, client, clock):
    trends = make(half_life=60, window=600, buckets=10)
    trends.hit("yesterday", 100), client.zincrby("naive", 100, "yesterday")
    assert trends.top() == [("yesterday", 100)]
    clock(60)
    trends.hit("today", 30), client.zincrby("naive", 30, "today")
    assert trends.top() == [("yesterday", 50), ("today", 30)]
    clock(120)
    trends.hit("today", 5), client.zincrby("naive", 5, "today")
    assert trends.top() == [("yesterday", 12.5), ("today", 12.5)]  # equal: the last name first
    clock(60)
    trends.hit("today"), client.zincrby("naive", 1, "today")
    assert trends.top() == [("today", 7.25), ("yesterday", 6.25)]
    assert client.zrevrange("naive", 0, 0) == ["yesterday"]


def test_what_is_out_of_the_window_counts_nothing_before_its_key_expires_too(make, clock):
    trends = make(half_life=60, window=600, buckets=10)
    trends.hit("old", 1000)
    clock(9 * 60)
    assert names(trends.top()) == ["old"]
    clock(60)
    assert trends.top() == []


def test_every_key_expires_before_its_place_comes_round_again(make, client):
    trends = make(window=100, buckets=4, refresh=60)
    trends.hit("a"), trends.top()
    lives = sorted(client.pttl(key) for key in client.keys())
    assert len(lives) == 2 and 0 < lives[0] <= 60_000 and 74_000 < lives[1] <= 100_000
    client.zincrby("naive", 1, "a")
    assert client.pttl("naive") == -1  # the control: the recipe's is there for ever


def test_the_keys_of_a_real_window_go(make, client):
    trends, tries = make(window=0.1, buckets=5), 0
    for n in range(50):
        trends.hit(f"topic-{n}")
    while client.dbsize():
        tries += 1
        assert trends.top() is not None and tries < 100_000


def test_a_ranking_is_made_once_for_a_crowd_and_shown_for_as_long_as_it_may_be(
    make, client, together
):
    trends = make(refresh=3600)
    trends.hits({"a": 2, "b": 1})
    client.config_resetstat()
    assert together(20, trends.top) == [[("a", 2), ("b", 1)]] * 20
    trends.hit("b", 5)
    assert names(trends.top()) == ["a", "b"]
    assert client.info("commandstats")["cmdstat_zunionstore"]["calls"] == 1
    assert names(make().top()) == ["b", "a"] == names(trends.top())  # who wants it anew has it so


def test_a_ranking_that_is_kept_has_a_thousand_topics_at_most(make, client):
    trends = make(refresh=60)
    for start in range(0, 1500, 500):
        trends.hits({f"topic-{n}": n + 1 for n in range(start, start + 500)})
    assert trends.top(1000)[-1] == ("topic-500", 501)
    assert client.zcard(next(client.scan_iter("*:top:*"))) == 1000


def test_rankings_are_kept_apart_by_name_and_by_what_their_rings_are_like(make):
    odd = ["}", "{x}", "a}b", "a:1", "a", "*", "é", "e\u0301", " ", "\0"]
    for number, name in enumerate(odd, start=1):
        make(name=name).hit(name, number)
    assert [make(name=name).top() for name in odd] == [
        [(name, number)] for number, name in enumerate(odd, start=1)
    ]
    assert make(name="a", buckets=3).top() == []


def test_two_half_lives_of_one_ring_have_two_rankings(make, clock):
    slow, quick = (make(half_life=n, window=600, buckets=10, refresh=60) for n in (60, 30))
    slow.hit("a", 4)
    clock(60)
    assert slow.top() == [("a", 2)] and quick.top() == [("a", 1)]


def test_the_asyncio_twin_does_the_same(aclient, run_async):
    async def main():
        trends = AsyncTrending(aclient, refresh=0)
        await trends.hit("a"), await trends.hits({"b": 2}), await trends.hits({})
        return await trends.top()

    assert run_async(main()) == [("b", 2), ("a", 1)]


BAD = {
    "topic": (lambda t: t.hit(""), ValueError),
    "no topic": (lambda t: t.hit(None), TypeError),
    "one of several": (lambda t: t.hits({"a": 1, b"b": 1}), TypeError),
    "count": (lambda t: t.hit("a", 0), ValueError),
    "less": (lambda t: t.hit("a", -1), ValueError),
    "half": (lambda t: t.hit("a", 0.5), TypeError),
    "true": (lambda t: t.hits({"a": True}), TypeError),
    "too many": (lambda t: t.hit("a", 10**6 + 1), ValueError),
    "list": (lambda t: t.hits(["a"]), TypeError),
    "topics": (lambda t: t.hits({str(n): 1 for n in range(501)}), ValueError),
    "top": (lambda t: t.top(0), ValueError),
    "long top": (lambda t: t.top(1001), ValueError),
}


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_nothing_is_written(make, client, call, error):
    with pytest.raises(error):
        call(make())
    assert client.dbsize() == 0


def test_a_bad_setting_is_refused(make, aclient):
    for wrong, options in {
        "half_life": {"half_life": 0},
        "window": {"window": float("inf")},
        "buckets": {"buckets": 0},
        "window must give each of 200": {"window": 1, "buckets": 200},
        "refresh": {"refresh": -1},
        "name": {"name": ""},
        "prefix": {"prefix": "{"},
    }.items():
        with pytest.raises(ValueError, match=wrong):
            make(**options)
    with pytest.raises(TypeError, match="connect"):
        Trending(aclient)


def test_without_redis_a_call_says_so():
    with cl.Server() as server:
        trends = Trending(cl.connect(server.url, timeout=5))
        trends.hit("a")
        server.kill()
        for call in (trends.top, lambda: trends.hit("a")):
            with pytest.raises(cl.RedisUnavailable, match="may be repeated"):
                call()
