"""Findings: what two runs must agree on, and that runs which differ are told apart.

Charts are kept as notebooks keep them.
"""

import numpy as np
import pandas as pd
import pytest

from cachelab.clients import answered
from cachelab.lab import charts, findings
from cachelab.lab.draw.figures import FigureError

NOISE = np.random.default_rng(1)


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Return a function that draws a chart into the folder of a run, and returns the folder."""

    def kept(run, kind, df, *columns, name="05_found", **more):
        monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path / run))
        getattr(charts, kind)(df, *columns, title="Found", name=name, **more)
        return tmp_path / run

    return kept


def times(slower=1.0, machine=1.0, n=200):
    """Return times of two variants, one ``slower`` than the other by so much."""
    variants = {"dict": 1e-6, "Redis": 1e-4 * slower}
    return pd.DataFrame(
        [
            (name, machine * NOISE.lognormal(np.log(t), 0.1))
            for name, t in variants.items()
            for _ in range(n)
        ],
        columns=["place", "seconds"],
    )


def only(df):
    """Return the one row there is."""
    assert len(df) == 1, df
    return df.iloc[0]


def test_times_are_compared_as_ratios_so_that_a_machine_twice_as_fast_finds_the_same(keep):
    first = keep("first", "strip", times(), "seconds", "place")
    row = only(
        findings.compare(first, keep("second", "strip", times(machine=0.5), "seconds", "place"))
    )
    assert row["chart"] == "05_found" and row["finding"] == "Redis ÷ dict" and row["agrees"]
    assert row["first_low"] < 100 < row["first_high"] and abs(row["difference"]) < 0.1


def test_runs_that_truly_differ_are_told_apart(keep):
    first = keep("first", "strip", times(), "seconds", "place")
    row = only(
        findings.compare(first, keep("second", "strip", times(slower=1.5), "seconds", "place"))
    )
    assert not row["agrees"] and row["difference"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("slower", "alone", "agrees"), [(1.05, True, True), (1.2, False, True), (1.4, False, False)]
)
def test_ratios_of_times_have_an_allowance_for_runs_and_those_that_need_it_are_told(
    keep, slower, alone, agrees
):
    first = keep("first", "strip", times(n=2000), "seconds", "place")
    df = findings.compare(
        first, keep("second", "strip", times(slower=slower, n=2000), "seconds", "place")
    )
    assert (only(df)["alone"], only(df)["agrees"]) == (alone, agrees)
    assert ("as runs do" in findings.in_words(df), "differs\n" in findings.in_words(df)) == (
        agrees and not alone,
        not agrees,
    )


def test_what_is_no_ratio_of_times_has_no_allowance(keep):
    at = np.arange(0, 10, 0.01)
    slow = [
        pd.DataFrame({"at": at, "seconds": np.where(np.arange(len(at)) % n, 1e-4, 1.0)})
        for n in (4, 3)
    ]
    cost = [pd.DataFrame({"gb": [1, 2], "cost": [9.0, last]}) for last in (5.0, 6.0)]
    for kind, frames, columns in (
        ("timeline", slow, ("at", "seconds")),
        ("curve", cost, ("gb", "cost")),
    ):
        runs = [keep(f"{kind}{i}", kind, df, *columns) for i, df in enumerate(frames)]
        df = findings.compare(*runs)
        assert df["agrees"].equals(df["alone"]) and not df["agrees"].all()


@pytest.mark.parametrize(
    ("second", "agrees"), [(0.659, True), (0.661, False), (0.546, True), (0.545, False)]
)
def test_without_intervals_the_larger_must_be_less_than_a_tenth_above_the_smaller(
    keep, second, agrees
):
    first = keep(
        "first", "bars", pd.DataFrame({"policy": ["LRU"], "hit_rate": [0.6]}), "policy", "hit_rate"
    )
    df = pd.DataFrame({"policy": ["LRU"], "hit_rate": [second]})
    assert (
        only(findings.compare(first, keep("second", "bars", df, "policy", "hit_rate")))["agrees"]
        == agrees
    )


@pytest.mark.parametrize(("low", "agrees"), [(0.65, True), (0.80, False)])
def test_intervals_that_overlap_agree_however_far_apart_the_values(keep, low, agrees):
    runs = ((0.6, 0.5, 0.7), (0.9, low, 0.95))
    frames = [
        pd.DataFrame([run], columns=["hit_rate", "hit_rate_low", "hit_rate_high"]) for run in runs
    ]
    folders = [
        keep(run, "bars", df.assign(policy="LRU"), "policy", "hit_rate")
        for run, df in zip("ab", frames, strict=True)
    ]
    assert only(findings.compare(*folders))["agrees"] == agrees


@pytest.mark.parametrize(("n", "agrees"), [(100, True), (10_000, False)])
def test_a_share_of_few_trials_has_a_wide_interval(keep, n, agrees):
    folders = [
        keep(
            run,
            "bars",
            pd.DataFrame({"order": ["DEL"], "share": [share], "n": n}),
            "order",
            "share",
        )
        for run, share in (("first", 0.40), ("second", 0.46))
    ]
    assert only(findings.compare(*folders))["agrees"] == agrees


def test_a_share_of_few_events_stays_a_share(keep):
    df = pd.DataFrame(
        {"at": [0.0, 1.0, 2.0, *np.arange(3.0, 11)], "seconds": [0.01] * 4 + [1.0] * 7}
    )
    look = {"shade": {"frozen": (2.5, 11)}}
    runs = [keep(run, "timeline", df, "at", "seconds", **look) for run in ("first", "second")]
    row = findings.compare(*runs).set_index("finding").filter(like="frozen", axis=0).iloc[0]
    assert row["agrees"] and 0 < row["first_low"] < row["first"] < row["first_high"] < 1


def test_an_axis_that_counts_who_waits_is_no_number_of_trials(keep):
    df = pd.DataFrame({"n": [10, 1000], "share": [-0.01, 0.4]})
    runs = [keep(run, "curve", df, "n", "share", logy=False) for run in ("first", "second")]
    assert findings.compare(*runs)["agrees"].all()


def test_the_ratio_of_a_timing_summary_is_the_finding_with_the_interval_that_is_beside_it(keep):
    df = pd.DataFrame({"variant": ["one by one", "MSET"], "p50": [1.0, 0.1], "ratio": [1.0, 0.1]})
    df["ratio_low"], df["ratio_high"] = df["ratio"] * 0.9, df["ratio"] * 1.2
    table = findings.compare(
        keep("first", "ranking", df, "p50", "variant"),
        keep("second", "ranking", df, "p50", "variant"),
    )
    row = table.set_index("finding").loc["MSET"]
    wider = (0.1 - 0.01 * 2.576 / 1.960, 0.1 + 0.02 * 2.576 / 1.960)  # 99 %, from 95 %
    assert row["first"] == 0.1 and (row["first_low"], row["first_high"]) == pytest.approx(
        wider, rel=1e-4
    )


def test_of_hundreds_of_findings_of_the_same_hardly_one_differs_by_chance(keep):
    def noisy():
        points = [
            (f"way {i}", keys, NOISE.lognormal(0, 0.5))
            for i in range(6)
            for keys in range(20)
            for _ in range(20)
        ]
        return pd.DataFrame(points, columns=["way", "keys", "seconds"])

    runs = [keep(run, "curve", noisy(), "keys", "seconds", "way") for run in ("first", "second")]
    table = findings.compare(*runs)
    assert (
        len(table) == 119
        and (table["difference"].abs() > 0.1).sum() > 50
        and (~table["agrees"]).sum() <= 1
    )


def test_a_bad_second_counts_once_not_as_all_its_calls(keep):
    steady = pd.DataFrame(
        {"connection": ["kept"] * 400 + ["new"] * 400, "seconds": NOISE.lognormal(0, 0.01, 800)}
    )
    hiccup = steady.copy()
    hiccup.loc[500:719, "seconds"] *= 5  # 220 calls in a row: independent ones would leave no doubt
    first = keep("first", "ecdf", steady, "seconds", by="connection")
    table = findings.compare(first, keep("second", "ecdf", hiccup, "seconds", by="connection"))
    row = table.set_index("finding").loc["new ÷ kept"]
    assert row["second"] > 4 and row["second_low"] < 1.1


def test_a_curve_is_compared_series_by_series_at_each_place_without_its_model(keep):
    def sweep(batch):
        rows = [(trip, "one by one", "measured", 0.1 + trip) for trip in (0, 1)]
        rows += [(trip, "pipeline", "measured", (0.1 + trip) / batch) for trip in (0, 1)]
        rows += [
            (trip, name, "model", 7.0) for trip in (0, 1) for name in ("one by one", "pipeline")
        ]
        return pd.DataFrame(rows, columns=["trip_ms", "method", "source", "seconds"])

    first = keep("first", "curve", sweep(10), "trip_ms", "seconds", "method")
    table = findings.compare(
        first, keep("second", "curve", sweep(20), "trip_ms", "seconds", "method")
    )
    assert dict(zip(table["finding"], table["agrees"], strict=True)) == {
        "one by one at 1 ms ÷ one by one at 0 ms": True,
        "pipeline ÷ one by one at 0 ms": False,
        "pipeline ÷ one by one at 1 ms": False,
    }


def test_a_single_series_is_compared_place_by_place_with_its_first(keep):
    df = pd.DataFrame({"keys": [1, 2, 3], "seconds": [1.0, 2.0, 4.0]})
    table = findings.compare(
        keep("first", "curve", df, "keys", "seconds"),
        keep("second", "curve", df, "keys", "seconds"),
    )
    assert dict(zip(table["finding"], table["first"], strict=True)) == {
        "at 2 ÷ at 1": 2.0,
        "at 3 ÷ at 1": 4.0,
    }


def test_a_chart_of_a_model_alone_has_no_findings(keep):
    df = pd.DataFrame({"gb": [1, 2], "cost": [9.0, 5.0], "source": "model"})
    first = keep("first", "curve", df, "gb", "cost")
    assert len(findings.compare(first, keep("second", "curve", df, "gb", "cost"))) == 0


@pytest.mark.parametrize(
    ("taken", "agrees"), [([1.0, 1.1, 1.2], True), ([1.0, 1.01, 1.02], False), ([1.0, 1.1], False)]
)
def test_three_measurements_have_students_interval_wider_than_their_range_and_two_have_none(
    keep, taken, agrees
):
    def runs(slower):
        rows = [
            (way, slower * t if way == "KEYS" else t) for way in ("SCAN", "KEYS") for t in taken
        ]
        return pd.DataFrame(rows, columns=["way", "seconds"])

    first = keep("first", "strip", runs(1.0), "seconds", "way")
    assert (
        only(findings.compare(first, keep("second", "strip", runs(2.0), "seconds", "way")))[
            "agrees"
        ]
        == agrees
    )


def test_places_that_are_measured_are_matched_by_what_was_asked(keep):
    def trips(measured):
        df = pd.DataFrame(
            {"trip_ms": measured, "asked_ms": [0, 0, 1, 1], "times as fast": [8.0, 9.0, 20.0, 21.0]}
        )
        return pd.concat(
            [df, pd.DataFrame({"trip_ms": [0.1], "times as fast": [1.0], "source": "model"})]
        )

    first = keep("first", "curve", trips([0.10, 0.12, 1.1, 1.2]), "trip_ms", "times as fast")
    table = findings.compare(
        first, keep("second", "curve", trips([0.13, 0.11, 1.3, 1.4]), "trip_ms", "times as fast")
    )
    assert list(table["finding"]) == ["at asked 0 ms", "at asked 1 ms"] and list(
        table["first"]
    ) == [8.5, 20.5]


def test_places_that_are_measured_are_else_matched_in_order(keep):
    folders = [
        keep(
            run,
            "curve",
            pd.DataFrame({"keys_held": held, "hit_rate": [0.3, 0.6]}),
            "keys_held",
            "hit_rate",
        )
        for run, held in (("first", [101, 203]), ("second", [99, 207]))
    ]
    table = findings.compare(*folders)
    assert list(table["finding"]) == ["at point 1", "at point 2"] and table["agrees"].all()


def test_another_number_of_measured_places_is_another_experiment(keep):
    first = keep(
        "first",
        "curve",
        pd.DataFrame({"keys": [101, 203], "hit_rate": [0.3, 0.6]}),
        "keys",
        "hit_rate",
    )
    second = keep(
        "second", "curve", pd.DataFrame({"keys": [99], "hit_rate": [0.3]}), "keys", "hit_rate"
    )
    table = findings.compare(first, second)
    assert list(table["finding"]) == ["at 101", "at 203", "at 99"] and not table["agrees"].any()


def test_runs_of_different_scale_come_with_a_caution(keep, monkeypatch):
    df = pd.DataFrame({"policy": ["LRU"], "hit_rate": [0.6]})
    monkeypatch.setenv("CACHELAB_SCALE", "quick")
    first = keep("first", "bars", df, "policy", "hit_rate")
    monkeypatch.setenv("CACHELAB_SCALE", "full")
    second = keep("second", "bars", df, "policy", "hit_rate")
    told = findings.in_words(findings.compare(first, second))
    assert "Caution: scale quick against full in 1 figures: not the same experiments." in told
    assert "Caution" not in findings.in_words(findings.compare(first, first))


def test_runs_on_different_servers_come_with_a_caution(keep):
    df = pd.DataFrame({"policy": ["LRU"], "hit_rate": [0.6]})
    folders = []
    for server in ("Redis 7.0.15", "Valkey 9.1.2"):
        for name in ("05_both", "06_both"):
            answered.forget()
            answered.servers.add(server)
            folders.append(keep(server, "bars", df, "policy", "hit_rate", name=name))
    first, second = folders[0], folders[-1]
    told = findings.in_words(findings.compare(first, second))
    assert "server Redis 7.0.15 against Valkey 9.1.2 in 2 figures: not the same server." in told
    assert "Caution" not in findings.in_words(findings.compare(first, first))


def test_reads_over_time_are_compared_by_the_share_that_is_slow_while_something_happened(keep):
    def reads(slow):
        at = np.arange(0, 10, 0.01)
        frozen = (at > 4) & (at < 6) & (NOISE.random(len(at)) < slow)
        return pd.DataFrame({"began": at, "seconds": np.where(frozen, 0.5, 1e-4)})

    columns, shade = ("began", "seconds"), {"frozen": (4, 6)}
    first = keep("first", "timeline", reads(0.5), *columns, shade=shade)
    same = findings.compare(first, keep("same", "timeline", reads(0.5), *columns, shade=shade))
    other = findings.compare(first, keep("other", "timeline", reads(0.1), *columns, shade=shade))
    assert list(same["finding"]) == ["slow", "slow while frozen"] and same["agrees"].all()
    assert list(other["agrees"]) == [True, False]


def test_small_counts_are_exact_and_large_ones_have_the_interval_of_chance(keep):
    def loads(one, many):
        return pd.DataFrame({"cure": ["lease", "nothing"], "loads": [one, many]})

    first = keep("first", "bars", loads(1, 200), "cure", "loads")
    table = findings.compare(first, keep("second", "bars", loads(2, 240), "cure", "loads"))
    assert list(table["agrees"]) == [False, True]
    table = findings.compare(first, keep("third", "bars", loads(1, 400), "cure", "loads"))
    assert list(table["agrees"]) == [True, False]


@pytest.mark.parametrize(
    ("first", "second", "agrees"), [(15, 19, True), (1, 3, False), (12, 60, False)]
)
def test_a_peak_of_many_at_once_has_the_interval_of_chance_and_a_small_one_is_exact(
    keep, first, second, agrees
):
    runs = [
        keep(
            run,
            "timeline",
            pd.DataFrame({"at": [0.0, 0.1, 0.2], "loads": [0, peak, 0]}),
            "at",
            "loads",
            steps=True,
        )
        for run, peak in (("first", first), ("second", second))
    ]
    assert only(findings.compare(*runs))["agrees"] == agrees


def test_nothing_agrees_with_nothing_and_not_with_something(keep):
    def stale(share):
        return pd.DataFrame({"order": ["lease"], "share": [share]})

    first = keep("first", "bars", stale(0.0), "order", "share")
    assert only(findings.compare(first, keep("same", "bars", stale(0.0), "order", "share")))[
        "agrees"
    ]
    assert not only(findings.compare(first, keep("other", "bars", stale(0.1), "order", "share")))[
        "agrees"
    ]


def test_what_only_one_run_has_is_named_and_disagrees(keep):
    df = pd.DataFrame({"policy": ["LRU", "LFU"], "hit_rate": [0.6, 0.7]})
    first = keep("first", "bars", df, "policy", "hit_rate")
    keep("first", "bars", df, "policy", "hit_rate", name="06_lost")
    table = findings.compare(first, keep("second", "bars", df[:1], "policy", "hit_rate"))
    assert list(table["agrees"]) == [True, False, False]
    assert (
        list(table["finding"][1:]) == ["LFU", f"only in {first}"] and table["chart"][2] == "06_lost"
    )


def test_the_panels_of_a_figure_are_compared_one_by_one(keep, tmp_path, monkeypatch):
    for run in ("first", "second"):
        monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path / run))
        for ax, share in zip(charts.panels(2, name="07_both"), (0.4, 0.5), strict=True):
            charts.bars(
                pd.DataFrame({"order": ["DEL"], "share": [share]}),
                "order",
                "share",
                title="Found",
                ax=ax,
            )
    table = findings.compare(tmp_path / "first", tmp_path / "second")
    assert (
        list(table["chart"]) == ["07_both, panel 1", "07_both, panel 2"] and table["agrees"].all()
    )


def test_the_command_tells_what_differs_and_ends_with_1(keep, capsys, tmp_path):
    df = pd.DataFrame({"policy": ["LRU", "LFU"], "hit_rate": [0.6, 0.7]})
    first = keep("first", "bars", df, "policy", "hit_rate")
    second = keep("second", "bars", df.assign(hit_rate=[0.6, 0.9]), "policy", "hit_rate")
    assert findings.main([str(first), str(first)]) == 0
    assert capsys.readouterr().out == "2 of 2 findings in 1 figures agree.\n"
    assert findings.main([str(first), str(second), "--csv", str(tmp_path / "table.csv")]) == 1
    out = capsys.readouterr().out
    assert "LFU" in out and "+29 %" in out and "LRU" not in out and "1 of 2 findings" in out
    assert len(pd.read_csv(tmp_path / "table.csv")) == 2


def test_a_folder_without_figures_is_told_in_one_line(keep, capsys, tmp_path):
    with pytest.raises(FigureError, match="holds no figures"):
        findings.compare(tmp_path, tmp_path)
    assert findings.main([str(tmp_path), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
