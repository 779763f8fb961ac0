"""The outage runs: readers, a server that breaks, and what is told of each read."""

import os
import threading
import time

import pandas as pd
import pytest

import cachelab as cl
from cachelab.lab import charts, outage

ROWS = {f"id{n}": f"value {n}" for n in range(10)}


@pytest.fixture
def own():
    with cl.Server() as server:
        yield server


def naive(url):
    client = cl.connect(url, retries=0, check=False)
    return lambda id: client.get(id) or (client.set(id, ROWS[id]) and ROWS[id])


def guarded(url):
    return cl.CacheAside(cl.connect(url, check=False), load=ROWS.get, ttl=60).get


def test_a_killed_server_costs_the_naive_application_reads_and_the_guarded_one_none(own):
    for make, loses in ((naive, True), (guarded, False)):
        df = outage.run(make(own.url), ROWS, 0.9, {0.3: own.kill, 0.6: own.restart}, readers=4)
        assert (
            list(df.columns) == outage.COLUMNS
            and df["began"].between(0, 5).all()
            and (df["seconds"] > 0).all()
        )
        assert ("ConnectionError" in set(df["outcome"])) is loses and "right" in set(df["outcome"])


def test_a_value_that_is_not_the_rows_is_called_wrong():
    df = outage.run(lambda id: "another", ROWS, 0.1, {}, readers=1)
    assert set(df["outcome"]) == {"wrong"}


def test_the_readers_have_ended_when_an_event_fails():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        outage.run(ROWS.get, ROWS, 5, {0.05: lambda: 1 / 0})
    assert threading.active_count() == before


def test_a_read_belongs_to_the_outage_that_it_waited_in():

    df = pd.DataFrame(
        [(0.1, 0.1, "right"), (0.9, 1.5, "right"), (1.5, 0.1, "X"), (3.0, 0.1, "right")],
        columns=outage.COLUMNS,
    )
    table = outage.table({"app": df}, {"killed": (1.0, 2.0)})
    assert table[["server", "application", "served", "lost", "longest ms"]].values.tolist() == [
        ["killed", "app", 1, 1, 1500]
    ]


def test_the_chart_shades_the_outage_and_tells_lost_from_served():

    df = pd.DataFrame([(0.1, 0.1, "right"), (1.5, 0.1, "X")], columns=outage.COLUMNS)
    ax = outage.chart(df, "what happened", {"killed": (1.0, 2.0)}, 3.0)
    assert [patch.get_x() for patch in ax.patches] == [1.0] and ax.get_xlim() == (0, 3)
    assert (
        "killed" in [text.get_text() for text in ax.texts]
        and "served: " in ax.alt
        and "lost: " in ax.alt
    )


def test_lost_reads_are_hollow_among_the_filled_dots_of_those_served():
    df = pd.DataFrame([(0.1, 0.1, "right"), (1.5, 0.1, "X")], columns=outage.COLUMNS)
    served, lost = outage.chart(df, "what happened", {}, 3.0).get_lines()
    looks = [(line.get_marker(), line.get_markerfacecolor()) for line in (lost, served)]
    assert looks[0] == ("s", "none") and looks[1] == ("o", served.get_color())


def test_a_timeline_that_shades_nothing_has_no_patches():

    ax = charts.timeline(
        pd.DataFrame({"at": [1, 2], "seconds": [1, 2]}), "at", "seconds", title="t"
    )
    assert not ax.patches


def test_readers_go_on_through_a_kill_and_end_with_close():
    before = threading.active_count()
    readers = outage.Readers(guarded, ROWS)
    _until(lambda: len(readers.recent()) > 10)
    readers.server.kill()
    seen = len(readers.recent(60))
    _until(lambda: len(readers.recent(60)) > seen + 10)
    pid = readers.server.restart().pid
    assert set(readers.recent()["outcome"]) == {"right"} and (readers.recent()["began"] < 0).all()
    assert (
        "0 lost"
        in outage.recent_chart(readers.recent()).get_title(loc="left")
        + outage.recent_chart(readers.recent()).alt
    )
    readers.close()
    _until(lambda: threading.active_count() == before)
    with pytest.raises(OSError):
        os.kill(pid, 0)


def test_a_frozen_server_holds_up_every_read_that_is_due_and_not_one_for_each_reader(own):
    get = cl.connect(own.url, timeout=5).get
    rows, freeze = {"absent": None}, {0.2: own.freeze, 0.7: own.thaw}
    opened = outage.run_open(get, rows, 0.9, freeze, rate=100, workers=80)
    closed = outage.run(get, rows, 0.9, freeze, readers=1)
    slow = {
        name: (df["seconds"] > 0.1).sum() for name, df in (("open", opened), ("closed", closed))
    }
    assert slow["closed"] <= 2 and slow["open"] > 20
    assert len(opened) == 90 and opened["began"].is_monotonic_increasing


def test_a_wait_for_a_worker_counts_from_when_the_read_was_due():
    def get(id):
        time.sleep(0.05)

    df = outage.run_open(get, {"a": None}, 0.2, {}, rate=50, workers=1)
    assert df["seconds"].iloc[-1] > 0.25 and set(df["outcome"]) == {"right"}


def test_the_times_in_the_table_are_those_of_reads_that_were_served():
    rows = [(1.1, 0.4, "right")] + [(1.2, 0.001, "ConnectionError")] * 99
    df = pd.DataFrame(rows, columns=outage.COLUMNS)
    row = outage.table({"app": df}, {"killed": (1.0, 2.0)}).iloc[0]
    assert (row["served"], row["lost"], row["p50 ms"], row["p99 ms"]) == (1, 99, 400, 400)
    assert 1000 * df["seconds"].median() == 1  # over all reads, who loses most looks quick


@pytest.mark.parametrize(
    "bad", [{"seconds": 0}, {"rate": 0}, {"rate": True}, {"workers": 0}, {"workers": 2.5}]
)
def test_a_bad_number_is_refused_before_anybody_reads(bad):
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(bad))} must be"):
        outage.run_open(pytest.fail, ROWS, **{"seconds": 1, "events": {}} | bad)


def _until(holds, patience=10.0):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
