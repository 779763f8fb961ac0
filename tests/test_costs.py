"""The theory of what a read costs, against what can be counted on fingers."""

import pytest

from cachelab.lab.measure.costs import mean_cost, read_costs


def at(df, cost, rate):
    rows = df[(df["cost"] == cost) & (df["hit_rate"].sub(rate).abs() < 1e-9)]
    return rows["seconds"].item()


def test_the_mean_is_what_ten_reads_take_together():
    reads = [1.0] * 8 + [1.0 + 9.0 + 2.0] * 2  # eight hits and two misses
    assert mean_cost(0.8, get=1, load=9, store=2) == pytest.approx(sum(reads) / 10)


def test_without_hits_a_cache_only_adds_to_the_load_and_with_hits_alone_nothing_else_is_left():
    assert mean_cost(0, get=1, load=9, store=2) == 12 and mean_cost(1, get=1, load=9, store=2) == 1


def test_a_cache_that_is_slower_than_its_origin_never_pays():
    df = read_costs(get=3, load=2, store=0)
    assert (
        df[df["cost"] == "mean"]["seconds"].to_numpy()
        > df[df["cost"] == "no cache"]["seconds"].to_numpy()
    ).all()


def test_the_95th_percentile_is_a_miss_until_one_read_in_twenty_misses():
    df = read_costs(get=1, load=9, store=2)
    assert [at(df, "p95", rate) for rate in (0, 0.9, 0.94, 0.95, 1)] == [12, 12, 12, 1, 1]


def test_the_frame_is_tidy_and_all_of_it_is_model():
    df = read_costs(get=1, load=9, hit_rates=[0, 0.5, 1])
    assert list(df.columns) == ["cost", "hit_rate", "seconds", "source"] and set(df["source"]) == {
        "model"
    }
    assert df.groupby("cost", sort=False).size().to_dict() == {"mean": 3, "p95": 3, "no cache": 3}
