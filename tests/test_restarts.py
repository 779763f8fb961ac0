"""Restarts: what readers get from a server that comes back empty, warmed, or with its own copy."""

import sys
from threading import Thread

import pytest

from cachelab.lab.faults import restarts


@pytest.fixture(scope="module")
def table():
    df = restarts.after_restart(seconds=1.5, rate=300, keys=300, warming=1000)
    return df.groupby("variant")[["reads", "hits", "loads", "warmed", "stale"]].sum()


def test_who_comes_back_warm_loads_less_for_readers_than_who_comes_back_cold(table):
    assert table.hits["warmed"] > table.hits["cold"]
    assert table.warmed["warmed"] > 50 and table.warmed["cold"] == 0
    assert table.loads["snapshot"] < table.loads["cold"] / 2


def test_a_snapshot_brings_back_what_was_invalidated_since(table):
    assert table.stale["snapshot"] > table.stale["log"] > 0
    assert table.stale["cold"] == table.stale["warmed"] == 0


def test_nothing_is_stale_where_nothing_changed():
    df = restarts.after_restart(["snapshot"], seconds=0.5, rate=100, keys=50, changed=0)
    assert df["stale"].sum() == 0 and df["hits"].sum() > 0


@pytest.mark.parametrize(
    "bad", [{"variants": ["warm"]}, {"variants": []}, {"seconds": 0}, {"changed": 2}]
)
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValueError):
        restarts.after_restart(**bad)


class Unsure(restarts._Rows):
    """Rows whose count two threads may leave behind."""

    def load(self, id):
        before = self.loaded
        sum(range(20))  # long enough for another thread
        self.loaded = before + 1


def counted(rows):
    threads = [Thread(target=lambda: [rows.load("row-0") for _ in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(rows.loaded)


def test_each_load_is_counted_however_many_come_at_once():
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert counted(restarts._Rows(1)) == 8000
        unsure = Unsure(1)
        unsure.loaded = 0
        assert counted(unsure) < 8000  # the control
    finally:
        sys.setswitchinterval(usual)
