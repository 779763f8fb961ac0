"""Limits: never one call too many, whatever the clocks of the callers say, and no key for ever.

The common recipe counts under the number of a minute, by its own clock, without an expiry.
"""

import subprocess
import sys
import threading

import pytest

import cachelab as cl
from cachelab.apps import limiter
from cachelab.apps.limiter import AsyncSlidingWindow, AsyncTokenBucket, SlidingWindow, TokenBucket


@pytest.fixture
def patient(server, client):
    """The client of a busy machine: no call of a crowd runs out of time."""
    return cl.connect(server.url, timeout=30)


KINDS = {  # ten at once, and no more for an hour
    "bucket": lambda client: TokenBucket(client, rate=1 / 3600, burst=10),
    "window": lambda client: SlidingWindow(client, limit=10, window=36_000),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


LATE = 60_000  # milliseconds that keys stay by the real clock, while the scripts' stands still


@pytest.fixture
def clock(client, monkeypatch):
    """Set the clock that the scripts see, in microseconds; the real one plays no part."""
    for name in ("BUCKET", "WINDOW"):
        script = getattr(limiter, name)
        fake = script.replace("redis.call('TIME')", "{0, redis.call('GET', 'clock')}")
        assert fake != script
        fake = fake.replace("/ 1000) + 1)", f"/ 1000) + {LATE})")
        monkeypatch.setattr(limiter, name, fake)
    client.set("clock", 10**15)
    return lambda microseconds: client.incrby("clock", microseconds)


class Recipe:
    """As tutorials have it: a counter for each minute, as the caller's clock numbers it."""

    def __init__(self, client, clock, limit=10):
        self.client, self.clock, self.limit = client, clock, limit

    def take(self, id):
        return self.client.incr(f"rate:{id}:{int(self.clock() // 60)}") <= self.limit


def allowed(decisions) -> int:
    return sum(one.is_allowed for one in decisions)


def test_a_crowd_gets_what_the_limit_allows_and_a_look_before_the_count_more(
    kind, patient, together
):
    limit = kind(patient)
    decisions = together(40, limit.take, "ada")
    assert allowed(decisions) == 10 and limit.take("bob").is_allowed
    seen = sorted(one.remaining for one in decisions if one.is_allowed)
    assert seen == list(range(10))

    def look_and_count(limit=10):
        if int(patient.get("naive") or 0) < limit:
            all_have_looked.wait()
            return patient.incr("naive")

    all_have_looked = threading.Barrier(40)
    assert max(together(40, look_and_count)) == 40


PROGRAM = """
import sys, time
import cachelab as cl
from cachelab.apps.limiter import SlidingWindow, TokenBucket
real, ahead = time.time, float(sys.argv[1])
time.time = time.monotonic = lambda: real() + ahead
client = cl.connect(sys.argv[2], timeout=30)
for limit in (TokenBucket(client, 1 / 3600, 10), SlidingWindow(client, 10, 36_000)):
    print(sum(limit.take("ada").is_allowed for _ in range(10)))
"""


def test_a_process_whose_clock_is_ahead_gets_no_second_limit_and_by_the_recipe_it_does(
    server, client
):
    command = [sys.executable, "-c", PROGRAM]
    processes = [
        subprocess.Popen([*command, ahead, server.url], stdout=subprocess.PIPE, text=True)
        for ahead in ("0", "30")
    ]
    told = [process.communicate()[0].split() for process in processes]
    assert [sum(map(int, counts)) for counts in zip(*told, strict=True)] == [10, 10]
    now = 1_700_000_040 + 45  # a quarter of a minute before the next
    clocks = (lambda: now, lambda: now + 30)
    assert sum(Recipe(client, clock).take("ada") for clock in clocks for _ in range(10)) == 20


def test_no_key_stays_and_of_the_recipe_every_one_does(kind, client):
    limit = kind(client)
    recipe = Recipe(client, lambda: 0)
    for n in range(100):
        limit.take(f"caller-{n}"), recipe.take(f"caller-{n}")
    lives = [client.pttl(key) for key in client.keys("[bw]*")]
    assert len(lives) == 100 and all(0 < life <= 36_000_001 + LATE for life in lives)
    assert {client.pttl(key) for key in client.keys("rate:*")} == {-1}


def test_a_key_goes_when_it_says_nothing_any_more(client):
    TokenBucket(client, rate=1, burst=100).take("ada", 2)
    SlidingWindow(client, limit=5, window=2).take("ada")
    assert 1000 < client.pttl("bucket:ada") <= 2001 and 1000 < client.pttl("window:ada") <= 2001


def test_a_call_is_one_command_and_one_that_is_refused_adds_nothing(kind, client):
    limit = kind(client)
    limit.take("ada", 10)
    (key,) = client.keys()
    before, left = client.dump(key), client.pttl(key)
    client.config_resetstat()
    assert not limit.take("ada").is_allowed
    assert client.info("commandstats")["cmdstat_eval"]["calls"] == 1
    assert client.info()["total_commands_processed"] < 12  # the script's, and those of this test
    assert client.dump(key) == before and client.pttl(key) <= left


def test_a_bucket_refills_at_its_rate(client, clock):
    limit = TokenBucket(client, rate=2, burst=4)
    assert allowed(limit.take("ada") for _ in range(6)) == 4
    refused = limit.take("ada")
    assert (refused.remaining, refused.retry_after, refused.reset_after) == (0, 0.5, 2.0)
    clock(499_999)
    assert not limit.take("ada").is_allowed
    clock(1)
    assert limit.take("ada").is_allowed and not limit.take("ada").is_allowed
    clock(1_700_000)  # 3.4
    assert limit.take("ada", 3).is_allowed and limit.take("ada").retry_after == 0.3
    clock(10**9)
    assert limit.take("ada").remaining == 3  # it holds no more than its size


@pytest.mark.parametrize("rate", [1 / 3, 3, 7, 1000, 1e6])
def test_who_waits_as_long_as_it_was_told_passes_and_no_sooner(client, clock, rate):
    limit = TokenBucket(client, rate=rate, burst=3)
    limit.take("ada", 3)
    for wanted in (1, 2, 3, 1, 1):
        wait = round(limit.take("ada", wanted).retry_after * 1e6)
        clock(wait - 1)
        assert not limit.take("ada", wanted).is_allowed
        clock(1)
        assert limit.take("ada", wanted).is_allowed


def test_no_stretch_of_a_window_has_one_too_many_and_at_a_minutes_turn_the_recipe_has(
    client, clock
):
    limit, passed = SlidingWindow(client, limit=5, window=1), []
    for step in [0, 900_000, 50_000, 49_999, 1, 1, 300_000, 700_000] * 3:
        now = clock(step)
        passed += [now for _ in range(4) if limit.take("ada").is_allowed]
    assert len(passed) > 20
    assert all(later - first >= 10**6 for first, later in zip(passed, passed[5:], strict=False))
    times = [59.0] * 10 + [60.0] * 10
    assert all(Recipe(client, times.pop).take("ada") for _ in range(20))  # 20 within one second


def test_a_window_tells_when_what_is_wanted_may_pass(client, clock):
    limit = SlidingWindow(client, limit=3, window=10)
    for step in (0, 10**6, 10**6):
        clock(step)
        limit.take("ada")
    assert [limit.take("ada", n).retry_after for n in (1, 2, 3)] == [8.0, 9.0, 10.0]
    clock(8 * 10**6)
    one = limit.take("ada")
    assert (one.is_allowed, one.remaining, one.reset_after) == (True, 0, 10.0)


def test_a_server_whose_clock_was_set_back_still_ends_a_limit(client, clock, kind):
    limit = kind(client)
    limit.take("ada", 9)
    clock(-3_600_000_000)
    assert limit.take("ada").is_allowed and not limit.take("ada").is_allowed
    assert all(client.pttl(key) <= 36_000_001 + LATE for key in client.keys("[bw]*"))


def test_a_real_window_opens_again(client):
    for limit in (SlidingWindow(client, 2, 0.05), TokenBucket(client, 40, 2)):
        limit.take("ada", 2)
        tries = 0
        while not limit.take("ada", 2).is_allowed:
            tries += 1
            assert tries < 100_000


def test_headers_tell_a_client_what_it_needs(kind, client):
    limit = kind(client)
    limit.take("ada", 9)
    told = limit.take("ada").headers
    assert told["RateLimit-Limit"] == "10" and told["RateLimit-Remaining"] == "0"
    assert 0 < int(told["RateLimit-Reset"]) <= 36_000 and "Retry-After" not in told
    assert 0 < int(limit.take("ada").headers["Retry-After"]) <= 36_000


def test_the_asyncio_twins_do_the_same(aclient, run_async):
    async def main():
        limits = AsyncTokenBucket(aclient, 1 / 3600, 2), AsyncSlidingWindow(aclient, 2, 3600)
        return [[(await limit.take("ada")).is_allowed for _ in range(3)] for limit in limits]

    assert run_async(main()) == [[True, True, False]] * 2


@pytest.mark.parametrize("text", ["", "x", "abc 12", "5", "5 x", "lease:1"])
def test_text_that_no_bucket_left_is_a_full_one(client, text):
    client.set("bucket:ada", text)
    assert TokenBucket(client, 1 / 3600, 10).take("ada").remaining == 9
    assert client.pttl("bucket:ada") > 0


BAD = {
    "id": (lambda limit: limit.take(""), ValueError),
    "no id": (lambda limit: limit.take(None), TypeError),
    "surrogate": (lambda limit: limit.take("\ud800"), ValueError),
    "cost": (lambda limit: limit.take("ada", 0), ValueError),
    "negative cost": (lambda limit: limit.take("ada", -1), ValueError),
    "text": (lambda limit: limit.take("ada", "1"), TypeError),
    "true": (lambda limit: limit.take("ada", True), TypeError),
    "more than ever": (lambda limit: limit.take("ada", 11), ValueError),
}


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_nothing_is_written(kind, client, call, error):
    with pytest.raises(error):
        call(kind(client))
    assert client.dbsize() == 0


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e7, 1e-9, True, "5"])
def test_a_bad_rate_is_refused(client, rate):
    with pytest.raises((TypeError, ValueError), match="rate must"):
        TokenBucket(client, rate, 10)


def test_other_bad_settings_are_refused(client, aclient):
    for wrong, make in {
        "burst": lambda: TokenBucket(client, 1, 0),
        "limit": lambda: SlidingWindow(client, 10_001, 60),
        "window": lambda: SlidingWindow(client, 10, 0),
        "prefix": lambda: SlidingWindow(client, 10, 1, prefix="\ud800"),
    }.items():
        with pytest.raises(ValueError, match=wrong):
            make()
    for make in (lambda: TokenBucket(aclient, 1, 1), lambda: AsyncTokenBucket(client, 1, 1)):
        with pytest.raises(TypeError, match="connect"):
            make()


def test_without_redis_a_call_says_so(kind):
    with cl.Server() as server:
        limit = kind(cl.connect(server.url, timeout=5))
        limit.take("ada")
        server.kill()
        with pytest.raises(cl.RedisUnavailable, match="may be repeated"):
            limit.take("ada")
