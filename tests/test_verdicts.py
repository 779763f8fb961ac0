"""Verdicts on predictions: gains with intervals, each beside what cannot be learned."""

import numpy as np
import pandas as pd
import pytest

from cachelab.lab.hits import prediction, workload

READS = 1500
SEEDS = range(6)


def rows(points, control=None, technique="a"):
    """Return a frame of trials in which so many of 100 reads became hits, a seed each."""
    made = []
    for is_control, gained in ((False, points), (True, control)):
        for seed, more in enumerate(gained or ()):
            made.append(
                {"trace": "t", "technique": technique, "is_control": is_control, "seed": seed}
                | {"reads": 100, "hits": 50 + more, "loads": 50 - more, "stale": 0}
                | {"hits_without": 50, "loads_without": 50, "stale_without": 0, "us_a_read": 1.0}
            )
    return pd.DataFrame(made)


NOTHING = [0] * 10
MUCH = [9, 10, 11, 10, 10, 9, 11, 10, 12, 8]
LITTLE = [-3, 4, -4, 3, 1, -1, 2, -2, 3, -2]


@pytest.mark.parametrize(
    ("points", "control", "verdict"),
    [
        (MUCH, NOTHING, "pays"),
        (MUCH, MUCH, "artefact"),
        (MUCH, None, "no control"),
        (LITTLE, NOTHING, "none"),
        (NOTHING, NOTHING, "none"),
        ([-more for more in MUCH], NOTHING, "costs"),
        (MUCH, [more + part for more, part in zip(MUCH, LITTLE, strict=True)], "artefact"),
    ],
)
def test_a_verdict_follows_from_the_intervals(points, control, verdict):
    (found,) = prediction.verdicts(rows(points, control))["verdict"]
    assert found == verdict


def test_an_interval_holds_the_mean_in_most_tables():
    rng, held = np.random.default_rng(0), 0
    for _ in range(60):
        (row,) = prediction.verdicts(rows(rng.normal(3, 5, 10).tolist())).itertuples()
        held += row.points_low <= 3 <= row.points_high
    assert 51 <= held < 60


def test_what_is_paid_stands_beside_the_gain():
    frame = rows(MUCH, NOTHING)
    frame.loc[~frame["is_control"], ["loads", "stale"]] = [60, 5]
    (row,) = prediction.verdicts(frame).itertuples()
    assert row.points == 10 and row.loads_percent == pytest.approx(20) and row.stale_points == 5


@pytest.fixture(scope="module")
def frame():
    cases = prediction.traces(READS)
    both = {name: cases[name] for name in ("independent", "sessions")}
    techniques = prediction.TECHNIQUES | {
        "eager": prediction.prefetching(lambda: prediction.Markov(1, 0.0), budget=5)
    }
    return prediction.trials(both, techniques, SEEDS)


def verdict(frame, trace, technique):
    table = prediction.verdicts(frame).set_index(["trace", "technique"])
    return table.loc[(trace, technique)]


def test_a_next_key_pays_where_reads_follow_each_other(frame):
    found = verdict(frame, "sessions", "next key, order 1")
    assert found["verdict"] == "pays" and found["points"] > 1 and found["loads_percent"] > 0


def test_a_next_key_gains_nothing_where_there_is_none(frame):
    found = verdict(frame, "independent", "next key, order 1")
    assert found["verdict"] != "pays" and abs(found["points"]) < 0.2


def test_prefetching_whatever_comes_to_mind_costs_loads_for_nothing(frame):
    found = verdict(frame, "independent", "eager")
    assert found["verdict"] != "pays" and found["loads_percent"] > 10


def test_a_table_without_its_control_says_that_nobody_knows(frame):
    without = prediction.verdicts(frame[~frame["is_control"]])
    assert "pays" in set(prediction.verdicts(frame)["verdict"])
    assert "pays" not in set(without["verdict"]) and "no control" in set(without["verdict"])


def test_the_same_seeds_give_the_same_counts(frame):
    cases = {"sessions": prediction.traces(READS)["sessions"]}
    again = prediction.trials(cases, seeds=[0])
    counts = ["technique", "is_control", "hits", "loads", "stale"]
    first = frame[(frame["trace"] == "sessions") & (frame["seed"] == 0)]
    first = first[first["technique"] != "eager"]
    assert again[counts].equals(first[counts].reset_index(drop=True))


def test_adaptive_expiry_is_compared_where_as_much_is_stale(frame):
    part = frame[frame["technique"].str.startswith("adaptive TTL")]
    assert (part["stale"] == part["stale_without"]).all() and (part["stale"] > 0).all()


def test_adaptive_expiry_is_tried_where_nothing_ever_changes():
    case = prediction.case_of(np.arange(400) % 7, seed=0, rates=(1e-9, 1e-9))
    with_it, without = prediction.TECHNIQUES["adaptive TTL"].play(case)
    assert with_it.stale == without.stale == 0 and without.hits > 0


def test_controls_keep_all_but_what_is_learned():
    case = prediction.sessions(READS, seed=3)
    order, rates, past = map(
        lambda control: control(case), (prediction.shuffled, prediction.alike, prediction.forgotten)
    )
    assert sorted(order.ids) == sorted(case.ids) and (order.ids != case.ids).any()
    assert np.ptp(rates.rates) == 0 and rates.rates.mean() == pytest.approx(case.rates.mean())
    half = READS // 2
    assert (past.ids[half:] == case.ids[half:]).all() and (past.ids[:half] != case.ids[:half]).any()


def test_a_trace_of_ones_own_is_tried_like_the_others(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("key\n" + "\n".join("abcde"[n % 5] + str(n % 3) for n in range(1000)))
    own = prediction.traces(300, workload.from_csv(path))["your own"]
    found = prediction.verdicts(prediction.trials({"your own": own}, seeds=range(3)))
    assert set(found["technique"]) == set(prediction.TECHNIQUES)
    with pytest.raises(ValueError, match="at most 9, not 10"):
        own(10)


@pytest.mark.parametrize("points", [[5], [5, 5.1]])
def test_one_or_two_seeds_give_no_verdict(points):
    (found,) = prediction.verdicts(rows(points, [0] * len(points)))["verdict"]
    assert found == "none"
    (found,) = prediction.verdicts(rows([5, 5.1, 5], [0] * 3))["verdict"]  # the control
    assert found == "pays"


def test_a_short_trace_would_find_certainty_in_chance():
    wrong = {100: 0, 1000: 0}  # of 12 traces in which nothing follows anything
    techniques = {"next key": prediction.prefetching()}
    for size in wrong:
        for draw in range(12):
            ids = workload.zipf(size, size // 12, 0.9, draw)
            parts = np.lib.stride_tricks.sliding_window_view(ids, 100)[:: max(1, size // 10)]

            def part(seed, parts=parts):
                return prediction.case_of(parts[seed % len(parts)], seed)

            frame = prediction.trials({"own": part}, techniques)
            wrong[size] += prediction.verdicts(frame)["verdict"][0] != "none"
    assert wrong[1000] <= 2 < wrong[100]
    with pytest.raises(ValueError, match="1000 reads or more, not 999"):
        prediction.cut(workload.Trace(np.arange(999), []), 100, seed=0)


@pytest.mark.parametrize(
    "bad", [{"times": [0, 2, 1]}, {"times": [0, 1]}, {"streams": [1]}, {"rates": (1, 0.1)}]
)
def test_a_case_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        prediction.case_of([1, 2, 1], 0, **bad)
    with pytest.raises(ValueError, match="number of ids"):
        prediction.case_of([], 0)


def test_the_parts_of_a_trace_do_not_overlap():
    trace = workload.Trace(np.repeat(np.arange(10), 200), [])
    parts = [prediction.cut(trace, 500, seed) for seed in range(10)]
    assert [(len(part.ids), len(part.rates)) for part in parts] == [(200, 1)] * 10


def test_pythons_own_names_are_a_trace():
    case = prediction.names(500, seed=1)
    assert len(case.ids) == 500 and len(np.unique(case.ids)) > 50
    assert (prediction.names(500, seed=2).ids != case.ids).any()
