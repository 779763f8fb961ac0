"""The bench of 10 and 10b: limits at a turn, programs that die, new Pythons, trials of answers."""

import runpy
import time
from pathlib import Path

import pytest

import cachelab as cl
from cachelab.apps.limiter import SlidingWindow
from cachelab.errors import CachelabError
from cachelab.lab import applications, widgets

SOLUTIONS = Path(__file__).parent.parent / "notebooks" / "solutions"


@pytest.fixture(scope="module")
def own():
    with cl.Server() as server:
        yield server


@pytest.fixture
def client(own):
    client = cl.connect(own.url, timeout=10)
    client.flushall()
    return client


def test_a_fixed_window_lets_twice_its_limit_pass_at_the_turn_and_a_sliding_one_does_not(client):
    sliding = SlidingWindow(client, limit=3, window=1)

    def fixed(id):
        return client.incr(f"{id}:{int(time.time())}") <= 3

    takes = {"fixed": fixed, "sliding": lambda id: sliding.take(id).is_allowed}
    seen = applications.at_the_turn(takes, window=1, around=0.2)
    assert seen.groupby("limiter")["calls"].max().to_dict() == {"fixed": 6, "sliding": 3}
    assert seen["at"].between(-0.2, 0.3).all() and (seen["at"] < 0).any() and (seen["at"] > 0).any()


def test_a_machine_that_always_stands_still_is_told(monkeypatch):
    monkeypatch.setattr(applications, "TRIES", 2)
    with pytest.raises(CachelabError, match="stood still in 2 runs"):
        applications.at_the_turn(
            {"slow": lambda id: time.sleep(0.1) is not None}, window=0.4, around=0.1
        )


def test_a_program_dies_behind_the_command_that_was_named_and_runs_again(client):
    def twice(client):
        client.incr("first")
        return client.incr("second")

    assert applications.after_a_death(twice, client, 1) == 1
    assert client.mget("first", "second") == ["2", "1"]
    assert applications.after_a_death(twice, client, 2) == 3
    with pytest.raises(CachelabError, match="after=3 is behind its last command"):
        applications.after_a_death(twice, client, 3)


def test_the_clock_is_ahead_inside_the_block_alone():
    before = time.time()
    with applications.clock_ahead(3600):
        assert time.time() - before > 3599
    assert time.time() - before < 3000


def by_hash(texts):
    return [hash(text) for text in texts]


def by_length(texts):
    return [len(text) for text in texts]


def test_new_pythons_agree_on_a_length_and_on_no_hash(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "1")  # with which they would
    first, second = applications.in_new_pythons(by_hash, ["one", "two"])
    assert not {*first} & {*second}
    assert applications.in_new_pythons(by_length, ["a", "ab"]) == [[1, 2], [1, 2]]


def fails_there(text):
    raise ValueError(f"not {text}")


def test_what_fails_in_a_new_python_is_told_in_its_last_line():
    with pytest.raises(CachelabError, match="in a new Python: ValueError: not this"):
        applications.in_new_pythons(fails_there, "this")
    with pytest.raises(CachelabError, match="write it with def"):
        applications.in_new_pythons(lambda text: text, "this")


def test_a_bucket_lets_its_burst_pass_and_then_its_rate():
    df = applications.token_bucket(rate=2, burst=3, calls=[n / 10 for n in range(100)])
    most = df.groupby("what")["calls"].max()
    assert most.to_dict() == {"sent": 100, "passed": 3 + 19}  # of the last 0.1 s not all is there
    early = df[df["at"] < 0.35].groupby("what")["calls"].max()
    assert early["passed"] == 3
    slow = applications.token_bucket(rate=2, burst=1, calls=range(5))
    assert slow.groupby("what")["calls"].max().to_dict() == {"sent": 5, "passed": 5}


def answer(name):
    return runpy.run_path(str(SOLUTIONS / name))


def verdicts(sentences):
    """Return which sentences hold: an assertion says that one does not."""
    seen = []
    for call in sentences.values():
        try:
            seen.append(bool(call()))
        except AssertionError:
            seen.append(False)
    return seen


def test_the_trials_of_a_cart_accept_a_script_and_see_who_deletes_what_came_between(client):
    def seen(name):
        take_out = answer(name)["take_out"]
        return verdicts(applications.TakeOutTrials(client, "yours", take_out).sentences())

    assert all(seen("10_take_out.py"))
    assert seen("10_take_out.wrong_then_hdel.py") == [True] * 4 + [False]
    assert seen("10_take_out.wrong_whole_cart.py") == [True, False, False, True, False]


def test_the_trials_of_a_log_in_accept_a_new_id_and_see_that_the_old_one_goes_on(client):
    def seen(name):
        log_in = answer(name)["log_in"]
        return verdicts(applications.LogInTrials(client, log_in).sentences())

    assert all(seen("10_new_id.py"))
    assert seen("10_new_id.wrong_both.py") == [True, False, True, True, True, True]
    assert seen("10_new_id.wrong_clock.py") == [True, True, True, False, True, True]


def test_the_trials_of_a_key_accept_json_and_see_what_joined_parts_look_like(monkeypatch):
    monkeypatch.setattr(applications, "in_new_pythons", lambda function, *parts: ["one", "one"])

    def seen(name):
        return verdicts(applications.KeyTrials(answer(name)["canonical"]).sentences())

    assert all(seen("10b_canonical.py"))
    assert seen("10b_canonical.wrong_joined.py") == [True] * 5 + [False]
    assert seen("10b_canonical.wrong_colons.py") == [True] * 5 + [False]


def test_the_panel_of_a_limit_tells_how_many_pass_and_follows_its_sliders():
    rate, burst, calls, picture = widgets.limit_over_time(rate=2, burst=10, calls=5).children
    assert "Burst 10, rate 2 a second: 49 of 100 calls pass in 20 s" in picture.value
    burst.value = 50
    assert "Burst 50, rate 2 a second: 89 of 100 calls pass" in picture.value
    calls.value = 1
    assert "20 of 20 calls pass" in picture.value
    with pytest.raises(ValueError, match="burst must be"):
        widgets.limit_over_time(burst=0)
