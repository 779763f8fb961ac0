"""Timing: fair turns, an interval that covers the true ratio, errors that say whose they are."""

import asyncio
import gc
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from cachelab.lab import at_scale, timing


def frame(seconds):
    """Return the frame that ``compare`` would have made of {variant: seconds a round}."""
    rows = [
        (name, turn, value) for name, values in seconds.items() for turn, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["variant", "round", "seconds"])


def noisy(ratio, rounds=40, seed=0):
    """Return two variants whose true ratio is known, under a round's noise and their own."""
    random = np.random.default_rng(seed)
    shared = random.lognormal(0, 0.5, rounds)
    return frame(
        {
            "base": shared * random.lognormal(0, 0.1, rounds),
            "other": ratio * shared * random.lognormal(0, 0.1, rounds),
        }
    )


def test_every_round_calls_every_variant_once_in_a_changing_order():
    calls = []
    timing.compare(
        {name: lambda name=name: calls.append(name) for name in "abc"}, rounds=20, warmup=0
    )
    rounds = [tuple(calls[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1


def test_the_order_follows_the_seed():
    def order(seed):
        calls = []
        timing.compare(
            {name: lambda name=name: calls.append(name) for name in "abc"}, rounds=9, seed=seed
        )
        return calls

    assert order(1) == order(1) != order(2)


def test_the_frame_is_tidy_and_leaves_the_warm_up_out():
    calls = Counter()
    df = timing.compare(
        {name: lambda name=name: calls.update([name]) for name in "ba"}, rounds=3, warmup=2
    )
    assert list(df.columns) == ["variant", "round", "seconds"] and calls == {"a": 5, "b": 5}
    assert list(zip(df["round"], df["variant"], strict=True)) == [
        (r, v) for r in range(3) for v in "ba"
    ]
    assert (df["seconds"] > 0).all()


def test_before_runs_before_each_call_and_is_not_timed(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing, "perf_counter", lambda: clock[0])

    def step(name, seconds):
        calls.append(name)
        clock[0] += seconds

    df = timing.compare(
        {"v": lambda: step("v", 1.0)}, rounds=2, warmup=1, before=lambda: step("before", 50.0)
    )
    assert calls == ["before", "v"] * 3 and list(df["seconds"]) == [1.0, 1.0]


def test_the_collector_waits_during_a_call_and_is_on_again_afterwards():
    seen = []
    timing.compare({"v": lambda: seen.append(gc.isenabled())})
    timing.sample(lambda: seen.append(gc.isenabled()), 3, warmup=0)
    assert set(seen) == {False} and gc.isenabled()


def test_an_error_names_its_variant_and_leaves_the_collector_on():
    with pytest.raises(ZeroDivisionError) as caught:
        timing.compare({"good": lambda: None, "bad": lambda: 1 / 0})
    assert "'bad'" in caught.value.__notes__[0] and gc.isenabled()


def test_sync_and_async_variants_are_timed_side_by_side():
    calls = []

    async def later():
        await asyncio.sleep(0)
        calls.append("async")

    async def before():
        calls.append("before")

    variants = {"sync": lambda: calls.append("sync"), "async": later}
    df = asyncio.run(timing.compare_async(variants, rounds=4, warmup=0, before=before))
    assert calls[::2] == ["before"] * 8 and Counter(calls[1::2]) == {"sync": 4, "async": 4}
    assert list(df["variant"]) == ["sync", "async"] * 4


def test_an_async_error_names_its_variant():
    async def bad():
        raise KeyError("gone")

    with pytest.raises(KeyError) as caught:
        asyncio.run(timing.compare_async({"bad one": bad}))
    assert "'bad one'" in caught.value.__notes__[0]


def test_timing_a_coroutine_function_as_if_it_were_sync_is_refused():
    async def nothing():
        pass

    with pytest.raises(TypeError, match="compare_async"):
        timing.compare({"v": nothing})
    with pytest.raises(TypeError, match="sample_async"):
        timing.sample(nothing, 3)


@pytest.mark.parametrize(
    "wrong",
    [{"rounds": 0}, {"rounds": 2.5}, {"warmup": -1}, {"variants": {}}, {"variants": {"a": 5}}],
)
def test_bad_arguments_are_refused_before_any_call(wrong):
    calls = []
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        timing.compare(**{"variants": {"a": lambda: calls.append(1)}} | wrong)
    assert calls == []


def test_the_summary_has_percentiles_and_a_ratio_for_each_variant():
    table = timing.summary(
        frame({"slow": [4.0] * 9, "fast": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0]})
    )
    assert list(table.columns) == [
        "n",
        "p50",
        "p95",
        "p99",
        "max",
        "ratio",
        "ratio_low",
        "ratio_high",
    ]
    assert list(table.index) == ["slow", "fast"] and table.index.name == "variant"
    assert table.loc["fast", ["n", "p50", "max", "ratio"]].tolist() == [9, 1.0, 3.0, 0.25]
    assert table.loc["slow", ["ratio", "ratio_low", "ratio_high"]].tolist() == [1, 1, 1]


def test_the_ratio_is_taken_against_the_baseline_named():
    df = frame({"slow": [4.0] * 5, "fast": [1.0] * 5})
    assert timing.summary(df, baseline="fast").loc["slow", "ratio"] == 4.0
    with pytest.raises(ValueError, match="'slow', 'fast', not 'other'"):
        timing.summary(df, baseline="other")


@pytest.mark.parametrize("rounds, often", [(3, 10), (4, 5), (5, 2), (9, 2), (40, 2)])
def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says_and_not_a_wrong_one(
    rounds, often
):
    tables = [timing.summary(noisy(0.8, rounds, seed=seed)).loc["other"] for seed in range(100)]
    covers = sum(t["ratio_low"] <= 0.8 <= t["ratio_high"] for t in tables)
    wrong = sum(t["ratio_low"] <= 1.6 <= t["ratio_high"] for t in tables)
    assert covers >= 88 and wrong <= often


def test_one_round_has_no_interval():
    assert timing.summary(noisy(0.8, rounds=1))[["ratio_low", "ratio_high"]].isna().all(axis=None)


def test_pairing_by_round_is_what_makes_the_interval_narrow():
    df = noisy(0.8)
    shuffled = df.copy()
    other = shuffled["variant"] == "other"
    shuffled.loc[other, "seconds"] = np.random.default_rng(1).permutation(
        shuffled.loc[other, "seconds"]
    )
    paired, apart = (timing.summary(one).loc["other"] for one in (df, shuffled))
    assert paired["ratio_high"] - paired["ratio_low"] < 0.8 * (
        apart["ratio_high"] - apart["ratio_low"]
    )


def test_the_interval_is_the_same_each_time():
    assert timing.summary(noisy(0.8)).equals(timing.summary(noisy(0.8)))


def test_a_missing_round_is_refused():
    with pytest.raises(ValueError, match="every round"):
        timing.summary(frame({"a": [1.0, 2.0], "b": [1.0]}))


def test_a_sample_has_a_duration_a_call_and_leaves_the_warm_up_out(monkeypatch):
    calls, ticks = [], iter(range(100))
    monkeypatch.setattr(timing, "perf_counter", lambda: float(next(ticks)))
    assert timing.sample(lambda: calls.append(1), 5, warmup=3).tolist() == [1.0] * 5
    assert len(calls) == 8
    assert timing.sample(lambda: calls.append(1), 2, warmup=0, repeat=4).tolist() == [0.25, 0.25]
    assert len(calls) == 16


def test_an_async_sample_awaits_each_call():
    calls = []

    async def call():
        calls.append(1)

    assert len(asyncio.run(timing.sample_async(call, 5, warmup=2))) == 5
    assert len(calls) == 7


def test_the_scale_picks_its_argument(monkeypatch):
    monkeypatch.delenv("CACHELAB_SCALE", raising=False)
    assert at_scale(1, 2) == 1
    monkeypatch.setenv("CACHELAB_SCALE", "full")
    assert at_scale(1, 2) == 2
    monkeypatch.setenv("CACHELAB_SCALE", "huge")
    with pytest.raises(ValueError, match="CACHELAB_SCALE .* 'huge'"):
        at_scale(1, 2)


@pytest.mark.parametrize("compare", [timing.compare, timing.compare_async])
def test_a_bar_is_shown_to_who_asks_for_one(compare, capsys):
    def told(**how):
        done = compare({"a": lambda: None}, rounds=3, **how)
        if asyncio.iscoroutine(done):
            done = asyncio.run(done)
        assert len(done) == 3
        return capsys.readouterr().err

    assert told() == "" and "0/4" in told(progress=True)  # the warm-up counts
