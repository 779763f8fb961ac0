"""Traces come out as their laws say, files as they were written; theory agrees with simulations."""

import gzip
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachelab.errors import CachelabError
from cachelab.lab import policies, workload

MADE = {
    "uniform": lambda seed: workload.uniform(500, 40, seed),
    "zipf": lambda seed: workload.zipf(500, 40, 1.1, seed),
    "shifting": lambda seed: workload.shifting(500, 40, every=100, seed=seed),
    "one_hit_wonders": lambda seed: workload.one_hit_wonders(500, 40, seed=seed),
    "daily": lambda seed: workload.daily(500, 40, seed=seed),
    "arrivals": lambda seed: workload.arrivals(500, 10, seed),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_the_same_seed_gives_the_same_workload_and_another_seed_another(make):
    assert np.array_equal(make(1), make(1)) and not np.array_equal(make(1), make(2))


def test_zipf_asks_for_each_key_as_often_as_its_law_says():
    counts = np.bincount(workload.zipf(100_000, 50, 1.2), minlength=50)
    expected = 100_000 * workload.popularity(50, 1.2)
    assert (abs(counts - expected) < 5 * np.sqrt(expected) + 5).all()


def test_without_skew_zipf_is_uniform_and_wants_every_key_alike():
    counts = np.bincount(workload.uniform(100_000, 50), minlength=50)
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)


def test_a_scan_walks_through_the_keys_in_order_again_and_again():
    assert workload.scan(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_scans_come_after_each_so_many_requests_over_keys_of_their_own_and_the_rest_stays():
    mixed = workload.with_scans(np.array([2, 0, 1, 0, 1, 1, 2]), every=3, length=2)
    assert mixed.tolist() == [2, 0, 1, 3, 4, 0, 1, 1, 3, 4, 2]
    assert workload.with_scans([0, 1], every=1, length=1).tolist() == [0, 2, 1, 2]


def test_shifting_popularity_has_other_favourites_after_each_shift_and_the_same_between():
    trace = workload.shifting(40_000, 1000, every=10_000, skew=1.2).reshape(8, 5000)
    favourites = [int(np.bincount(part).argmax()) for part in trace]
    assert favourites[::2] == favourites[1::2] and len(set(favourites)) == 4


def test_one_hit_wonders_come_once_and_take_their_share():
    trace = workload.one_hit_wonders(10_000, 100, share=0.3)
    once = trace[trace >= 100]
    assert len(set(once.tolist())) == len(once) and abs(len(once) - 3000) < 200


def test_by_day_one_half_of_the_keys_is_wanted_and_by_night_the_other():
    first = workload.daily(40_000, 100, days=2) < 100
    parts = first.reshape(16, -1).mean(axis=1)  # eight parts a day, from noon on
    assert parts[[0, 7, 8, 15]].min() > 0.9 and parts[[3, 4, 11, 12]].max() < 0.1


def test_arrivals_keep_their_rate_and_come_at_random_moments():
    gaps = np.diff(workload.arrivals(50_000, 200))
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.02) and gaps.std() == pytest.approx(
        1 / 200, rel=0.03
    )


def test_arrivals_swing_between_day_and_night():
    at = workload.arrivals(20_000, 100, swing=0.8, period=50)
    parts, _ = np.histogram(at[at < 200], bins=16)  # four parts a period
    assert (np.diff(at) > 0).all() and parts[0::4].min() > 2 * parts[3::4].max()


def test_a_million_arrivals_over_many_periods_swing_alike_in_each():
    at = workload.arrivals(1_000_000, 100, swing=1.0, period=1.0)
    parts, _ = np.histogram(at % 1.0, bins=4)
    assert (np.diff(at) >= 0).all() and parts[0] > 0.3 * len(at) > 0.2 * len(at) > parts[3]
    assert at[-1] == pytest.approx(10_000, rel=0.01)


@pytest.mark.parametrize(
    "call",
    [
        lambda: workload.zipf(-1, 10),
        lambda: workload.zipf(10, 0),
        lambda: workload.zipf(10, 5, -0.1),
        lambda: workload.zipf(10.5, 5),
        lambda: workload.scan(5, True),
        lambda: workload.with_scans(workload.scan(5, 5), 0, 3),
        lambda: workload.shifting(10, 5, every=0),
        lambda: workload.one_hit_wonders(10, 5, share=1.5),
        lambda: workload.daily(10, 5, days=0),
        lambda: workload.arrivals(10, 0),
        lambda: workload.arrivals(10, 1, swing=2),
        lambda: workload.reads_and_changes(2, 0, 1, 1),
        lambda: workload.reads_and_changes(2, 5, 1, 1, joining=6),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_rule(call):
    with pytest.raises((ValueError, TypeError), match=r"must (be|lie)"):
        call()


def test_reads_and_changes_come_in_order_at_their_rates_once_a_key_has_joined():
    events = workload.reads_and_changes(200, 20, read_rate=5, change_rate=0.5, joining=10, seed=1)
    assert events == sorted(events) and {key for _, key, _ in events} == set(range(200))
    late = [what for moment, _, what in events if 10 <= moment < 20]
    early = [what for moment, _, what in events if moment < 10]
    assert late.count("read") == pytest.approx(10_000, rel=0.05)
    assert late.count("change") == pytest.approx(1000, rel=0.15)
    # Until all have joined, half the keys are there on average.
    assert len(early) == pytest.approx(len(late) / 2, rel=0.1)
    at_once = workload.reads_and_changes(200, 20, read_rate=5, change_rate=0.5, seed=1)
    assert len([moment for moment, _, _ in at_once if moment < 10]) > 1.5 * len(early)


def test_no_requests_are_an_empty_trace():
    assert all(
        len(make) == 0
        for make in (workload.zipf(0, 5), workload.scan(0, 5), workload.arrivals(0, 5))
    )


# From a file


def read(tmp_path, text: str):
    (path := tmp_path / "trace.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    return workload.from_csv(path)


def test_one_key_a_line_is_a_trace(tmp_path):
    trace = read(tmp_path, "b\na\nb\n\nc")
    assert trace.ids.tolist() == [0, 1, 0, 2] and trace.names == ["b", "a", "c"]
    assert trace.times is trace.sizes is None


def test_three_columns_are_time_key_and_size(tmp_path):
    trace = read(tmp_path, '0,"a,b",10\n0.5,ü,0\r\n1e1,"a,b",20')
    assert (trace.ids.tolist(), trace.names) == ([0, 1, 0], ["a,b", "ü"])
    assert (trace.times.tolist(), trace.sizes.tolist()) == ([0, 0.5, 10], [10, 0, 20])


def test_a_first_line_names_the_columns_in_any_order_and_others_are_passed_over(tmp_path):
    trace = read(tmp_path, "\ufeffSize,op, Key\n3,get,a\n4,get,b\n")
    assert (trace.names, trace.sizes.tolist(), trace.times) == (["a", "b"], [3, 4], None)


@pytest.mark.parametrize("mark", [",", ", ", ";", "\t"])
@pytest.mark.parametrize("header", [["time", "key", "size"], []])
def test_commas_semicolons_and_tabs_part_columns(tmp_path, mark, header):
    trace = read(
        tmp_path,
        "\r\n".join(
            mark.join(row) for row in (header, ["0", '"a,b"', "1"], ["2", "c", "3"]) if row
        ),
    )
    assert (trace.names, trace.times.tolist(), trace.sizes.tolist()) == (
        ["a,b", "c"],
        [0, 2],
        [1, 3],
    )


def test_blanks_around_a_cell_do_not_count_and_neither_do_lines_of_blanks(tmp_path):
    trace = read(tmp_path, ' \na\na \n\ta\n   \n"a"\t\n\n')
    assert (trace.ids.tolist(), trace.names) == ([0, 0, 0, 0], ["a"])
    assert read(tmp_path, " time , key \n 0 , a , \n".replace(", \n", "\n")).names == ["a"]


def test_blanks_in_quotes_make_another_key(tmp_path):
    assert read(tmp_path, 'a\n"a "\n" "\n').names == ["a", "a ", " "]


def test_quotes_in_the_middle_of_a_cell_are_characters_of_a_key(tmp_path):
    assert read(tmp_path, 'a"b\n"c""d"\n"e\nf"\n').names == ['a"b', 'c"d', "e\nf"]


@pytest.mark.parametrize("name", ["url", "id"])
def test_a_key_that_is_called_as_a_column_may_be_asked_for_below_a_heading(tmp_path, name):
    assert read(tmp_path, f"key\n{name}\n").names == [name]
    assert read(tmp_path, f"a\n{name}\n").names == ["a", name]


def test_a_trace_says_that_simulations_leave_its_sizes_out(tmp_path):
    assert "from 5 to 1,000 bytes: simulations count keys" in read(tmp_path, "0,a,5\n1,b,1000").note
    assert read(tmp_path, "0,a,5\n1,b,5").note == read(tmp_path, "a\nb").note == ""


def test_keys_that_hold_semicolons_are_keys(tmp_path):
    assert read(tmp_path, "a;b\nc;d;e\n").names == ["a;b", "c;d;e"]


def test_the_line_is_the_one_on_which_what_is_malformed_begins(tmp_path):
    with pytest.raises(workload.TraceError, match="line 4: "):
        read(tmp_path, '\nkey\na\n"b\n' + 50 * "c\n")
    with pytest.raises(workload.TraceError, match="line 5: "):
        read(tmp_path, '\nkey\n"a\nb"\nc,d\n')


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(b"a\nb\n"),
        "time,key,size\n".encode("utf-16"),
        "key\na\n".encode("utf-16-le"),
        b"PK\x03\x04,\0",
        b"\xfc",
    ],
    ids=["gzip", "UTF-16", "UTF-16 without its mark", "zip", "Latin-1"],
)
def test_what_is_packed_or_in_another_encoding_is_no_trace(tmp_path, packed):
    (path := tmp_path / "trace.csv").write_bytes(packed)
    with pytest.raises(
        workload.TraceError, match=r"line 1: wants text in UTF-8, and holds .*: unpack the file"
    ):
        workload.from_csv(path)


def test_a_trace_is_a_file_and_no_number_of_one():
    with pytest.raises(TypeError):
        workload.from_csv(0)


MALFORMED = {
    "": "holds no request: a trace is one key a line",
    "\n\n": "holds no request",
    "key\n": "holds no request",
    "a\nb\nc,d\n": "line 3: wants key, and holds ['c', 'd']: a key with a comma is quoted",
    "a,b\n": "line 1: wants one key, the columns time, key, size, or a line that names them",
    "time,key\n1,a\n2\n": "line 3: wants time, key, and holds ['2']",
    "time,key\n1,a\n0.5,b\n": "line 3: time must never fall, not '0.5' after 1: sort the lines",
    "1700000000,a,1\n1699999999,a,1\n": "never fall, not '1699999999' after 1700000000:",
    "time,key\n2026-01-01,a\n": "line 2: time must be seconds, a number, not '2026-01-01'",
    "nan,a,1\n": "line 1: time must be seconds",
    "1_0,a,1\n": "line 1: time must be seconds",
    "0,a,1\n1,b,-1\n": "line 2: size must be a whole number of bytes, at least 0, not '-1'",
    "0,a,1.5\n": "line 1: size must be a whole number",
    "0,a,99999999999999999999\n": "line 1: size must be a whole number",
    "0,,1\n": "line 1: key must be 1 to 512 bytes long",
    'a\n""\n': "line 2: key must be 1 to 512 bytes long",
    "a\n" + 600 * "b": "line 2: key must be 1 to 512 bytes long",
    "a\n" + 200_000 * "b": "line 2: key must be 1 to 512 bytes long",
    "a\n" + 500_000 * "b,": "line 2: wants key, and holds ['b', 'b'",
    200_000 * "b" + ",a,1": "line 1: time must be seconds",
    1000 * "b" + ",a,1": "line 1: time must be seconds",
    "a\n\udcff\n": "line 2: wants text in UTF-8",
    "a\nb\0\n": "line 2: wants text in UTF-8",
    'a\n"b\n': "line 2: a cell in quotes never ends: is a double quote missing?",
    'a\n"b' + 200_000 * "c\n": "line 2: a cell in quotes never ends",
    'a\n"b"c\n': "line 2: wants nothing behind a cell in quotes, and holds '\"b\"c'",
    "timestamp,id\n1,a\n": "line 1: names columns, and none of ['timestamp', 'id'] is key",
    "timestamp,id,bytes\n1,a,5\n": "none of ['timestamp', 'id', 'bytes'] is key: call the one",
    "timestamp;id\n1;a\n": "line 1: names columns, and none of ['timestamp', 'id'] is key",
    "when,what,large\n1,a,5\n": "line 1: names columns, and none of ['when', 'what', 'large'] is",
    "url\n/a\n": "line 1: 'url' looks like the name of a column: call it key or",
    "\nID\n7\n": "line 2: 'ID' looks like the name of a column",
    "key,time,key\na,1,b\n": "line 1: names the column key 2 times",
}


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_trace_is_refused_with_its_line(tmp_path, text):
    with pytest.raises(workload.TraceError) as caught:
        read(tmp_path, text)
    assert MALFORMED[text] in str(caught.value) and "trace.csv" in str(caught.value)
    assert isinstance(caught.value, CachelabError) and isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


@settings(max_examples=50)
@given(
    st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=8))
)
def test_what_a_csv_writer_has_written_comes_back(tmp_path_factory, names):
    import csv

    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["key"], *([name] for name in names)])
    if names:
        trace = workload.from_csv(path)
        assert [trace.names[id] for id in trace.ids] == names


# Theory


@pytest.mark.parametrize("skew", [0.0, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("capacity", [50, 500])
def test_exact_lru_lies_on_ches_line_and_random_and_fifo_on_theirs(skew, capacity):
    trace, shares = workload.zipf(100_000, 5000, skew), workload.popularity(5000, skew)
    rate = {
        p: policies.simulate(p, trace, capacity)[20_000:].mean() for p in ("LRU", "random", "FIFO")
    }
    assert rate["LRU"] == pytest.approx(workload.che(shares, capacity), abs=0.015)
    assert rate["random"] == pytest.approx(workload.che_random(shares, capacity), abs=0.015)
    assert rate["FIFO"] == pytest.approx(workload.che_random(shares, capacity), abs=0.015)


@pytest.mark.parametrize("skew", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("keys", [10, 300, 10_000, 1_000_000])
def test_few_keys_or_a_million_once_it_is_full_exact_lru_lies_on_ches_line(keys, skew):
    distances = policies.reuse_distances(workload.zipf(100_000, keys, skew))
    firsts = np.cumsum(distances == distances.max())
    for capacity in (2, 5, 100, 1000):
        if capacity < min(keys, firsts[40_000]):
            counted = distances[np.searchsorted(firsts, capacity) :]
            line = workload.che(workload.popularity(keys, skew), capacity)
            assert (counted <= capacity).mean() == pytest.approx(line, abs=0.015), capacity


def test_the_lines_are_in_order_and_meet_when_everything_or_nothing_fits():
    shares = workload.popularity(100, 0.9)
    lines = [
        (workload.che_random(shares, c), workload.che(shares, c), workload.ideal_lfu(shares, c))
        for c in (1, 30, 99)
    ]
    assert all(0 < low < middle < high < 1 for low, middle, high in lines)
    for line in (workload.che, workload.che_random, workload.ideal_lfu):
        assert line(shares, 100) == pytest.approx(1) and line(shares, 0) == pytest.approx(
            0, abs=1e-9
        )


def test_keys_that_nobody_wants_take_no_room():
    assert workload.che([0.5, 0.5, 0, 0], 2) == 1.0


def test_the_lines_of_a_chart_are_the_theories_values():
    shares = workload.popularity(50, 1.0)
    df = workload.hit_rate_lines(shares, [5, 10], ["FIFO", "LFU"])
    expected = [
        line(shares, c) for line in (workload.che_random, workload.ideal_lfu) for c in (5, 10)
    ]
    assert df["hit_rate"].tolist() == expected and df["policy"].tolist() == [
        "FIFO",
        "FIFO",
        "LFU",
        "LFU",
    ]


@pytest.mark.parametrize("shares", [[], [0.5, 0.4], [1.5, -0.5], [[1.0]]])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ValueError, match="popularity must be shares"):
        workload.che(shares, 1)


def test_a_ttl_as_long_as_the_time_between_reads_hits_half_of_them():
    assert workload.ttl_hit_rate(read_rate=4, ttl=0.25) == 0.5 and workload.ttl_hit_rate(4, 0) == 0
    assert workload.ttl_hit_rate(4, 25) == pytest.approx(0.99, abs=0.001)


def test_stale_reads_are_none_without_changes_and_all_hits_when_the_row_never_stands_still():
    assert workload.ttl_stale_share(4, 0, ttl=10) == workload.ttl_stale_share(4, 1, ttl=0) == 0
    assert workload.ttl_stale_share(4, 1e6, ttl=10) == pytest.approx(
        workload.ttl_hit_rate(4, 10), rel=1e-4
    )
    assert workload.ttl_stale_share(1000, 0.001, ttl=10) == pytest.approx(
        0.005, rel=0.01
    )  # half of change_rate * ttl


def test_the_model_of_a_ttl_agrees_with_its_simulation():
    rng, reads, hits, stale = random.Random(7), 0, 0, 0
    for _ in range(20_000):  # one life of a key: a miss, then hits until it expires
        changed, at = rng.expovariate(0.5), rng.expovariate(5)
        reads += 1
        while at < 0.8:
            reads, hits, stale = reads + 1, hits + 1, stale + (at > changed)
            at += rng.expovariate(5)
    assert hits / reads == pytest.approx(workload.ttl_hit_rate(5, 0.8), abs=0.01)
    assert stale / reads == pytest.approx(workload.ttl_stale_share(5, 0.5, 0.8), abs=0.01)
