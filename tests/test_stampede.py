"""The workload of the stampede counts what it should, with a guard and without one."""

import inspect
import itertools
import threading
from concurrent.futures import Future
from math import exp

import numpy as np
import pandas as pd
import pytest
from conftest import at_best

import cachelab as cl
from cachelab.lab import stampede


@pytest.fixture
def make(client):
    """The two ends of the ladder: a cache without a guard, and the package's."""

    def bare(load):
        def get(id):
            if (value := client.get(id)) is None:
                client.set(id, value := load(id), px=60_000)
            return value

        return get

    def leased(load):
        return cl.CacheAside(client, load=load, ttl=60, jitter=0).get

    return {"bare": bare, "leased": leased}


def events(*rows):
    return pd.DataFrame(rows, columns=["event", "began", "ended"]).assign(
        technique="some", age=0.0, seconds=0.001
    )


@pytest.mark.parametrize(
    ("function", "bad"),
    [
        (stampede.crowd, {"copies": 0}),
        (stampede.outcomes, {"readers": 0}),
        (stampede.early_loads, {"windows": 0}),
        (stampede.crowd, {"readers": 2.5}),
        (stampede.run, {"pause": 0}),
        (stampede.run, {"dies": -1}),
        (stampede.run, {"seconds": True}),
        (stampede.simulate, {"connections": 0}),
        (stampede.simulate, {"ttl": float("nan")}),
    ],
)
def test_a_bad_number_is_refused_before_anybody_reads(function, bad):
    arguments = {"error": OSError, "rates": [1], "betas": [1]}
    arguments |= {"make": pytest.fail, "technique": "lease", "load": pytest.fail, "seconds": 1}
    taken = inspect.signature(function).parameters
    given = {name: value for name, value in arguments.items() if name in taken}
    given |= {"load": 0.1} if function is stampede.simulate else {}
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(bad))} must be"):
        function(**given | bad)


def test_numbers_of_any_type_are_taken():
    df = stampede.simulate("lease", np.int8(4), np.float32(0.02), seconds=np.int64(1))
    assert df.equals(stampede.simulate("lease", 4, float(np.float32(0.02)), seconds=1))


def test_a_crowd_before_a_cold_key_loads_once_each_without_a_guard_and_once_with_a_lease(
    make, client
):
    assert stampede.crowd(make["bare"], readers=20, copies=2, seconds=1.0) == 20
    client.delete("cold")
    assert stampede.crowd(make["leased"], readers=20, copies=2, seconds=0.2) == 1


def test_a_run_tells_every_read_with_the_age_of_its_answer_and_every_load_after_the_start(
    make, client
):
    expired = threading.Event()

    def load(id):
        expired.set()

    def make_expiring(load):
        get = make["leased"](load)

        def read(id):
            if expired.is_set() and not client.exists("once") and client.set("once", 1, nx=True):
                client.delete(id)
            return get(id)

        return read

    df = stampede.run("leased", make_expiring, load, seconds=0.2, copies=2, readers=2, pause=0.005)
    reads, loads = df[df["event"] == "read"], df[df["event"] == "load"]
    assert list(df.columns) == stampede.COLUMNS and set(df["technique"]) == {"leased"}
    assert len(loads) <= 1 and len(reads) > 4 and loads["age"].isna().all()
    assert (
        (reads["age"] >= 0).all()
        and (df["ended"] >= df["began"]).all()
        and (df["began"] >= 0).all()
    )


def test_loads_that_outlast_a_run_are_drawn_to_its_end_and_no_further():
    df = stampede.simulate("nothing", load=0.3, seconds=1.0)
    assert df["ended"].max() > 1.0
    top, _ = stampede.chart(df[df["seconds"] > 0], 1.0).figure.axes
    assert top.dataLim.x1 == 1.0


def test_readers_that_wait_for_ever_end_a_run_with_their_number(monkeypatch):
    monkeypatch.setattr(stampede, "PATIENCE", 0.1)
    reads, go = itertools.count(), threading.Event()

    def get(id):
        if next(reads):  # the first opens the connection
            go.wait()

    with pytest.raises(TimeoutError, match=r"6 of 6 threads still wait after 0\.1 s"):
        stampede.run("stuck", lambda _: get, pytest.fail, seconds=1, copies=2, readers=3)
    go.set()


def test_a_load_that_dies_holds_up_only_those_who_wait_for_it(client):
    def make(load):
        return lambda id: (
            load(id) if (client.incr("reads") == 6) else repr(0.0)
        )  # 1 + 4 reads open the connections

    def one_is_held_up() -> bool:
        client.delete("reads")
        df = stampede.run(
            "dies", make, lambda id: None, seconds=0.3, copies=2, readers=2, pause=0.01, dies=1
        )
        slow = df[df["seconds"] > 0.1]
        assert len(df) > 6
        return sorted(slow["event"]) == ["load", "read"] and slow["ended"].min() >= 0.3

    assert at_best(one_is_held_up)


def flights(tells_followers):
    """A single-flight whose followers hear of a load that raises, or do not."""

    def make(load):
        under_way, lock = {}, threading.Lock()

        def get(id):
            with lock:
                leads, flight = id not in under_way, under_way.setdefault(id, Future())
            if leads:
                try:
                    flight.set_result(load(id))
                except BaseException as error:
                    if not tells_followers:
                        raise
                    flight.set_exception(error)
                finally:
                    del under_way[id]
            return flight.result()

        return get

    return make


def test_what_the_readers_of_a_failing_load_get_is_told_and_who_gets_nothing():
    assert stampede.outcomes(flights(True), SystemExit, readers=3) == ["SystemExit"] * 3
    seen = stampede.outcomes(flights(False), KeyError, readers=3, patience=0.3)
    assert sorted(seen) == ["KeyError", "no answer", "no answer"]


def test_an_error_of_a_technique_is_raised(client):
    with pytest.raises(ZeroDivisionError):
        stampede.run("broken", lambda load: lambda id: 1 / 0, lambda id: None, seconds=0.1)


def test_loads_under_way_are_counted_from_their_begin_to_their_end():
    df = events(("load", 1.0, 3.0), ("load", 2.0, 4.0), ("read", 1.0, 9.0))
    assert stampede.under_way(df).values.tolist() == [[0, 0], [1, 1], [2, 2], [3, 1], [4, 0]]


def test_loads_that_begin_close_together_belong_to_one_expiry_however_long_they_take():
    near, far = 0.4 * stampede.TTL, 0.6 * stampede.TTL
    begins = [0.0, near, 2 * near, 2 * near + far]
    assert (
        stampede.an_expiry(events(*[("load", at, 9.0) for at in begins], ("read", 5.0, 6.0))) == 2
    )
    assert (
        stampede.an_expiry(events(("load", 1.0, 2.0))) == 1
        and stampede.an_expiry(events(("read", 0.0, 1.0))) == 0
    )


def test_the_ladder_has_a_row_for_each_run():
    df = events(("load", 0.5, 3.0), ("load", 2.0, 4.0), *[("read", 0.1, 0.2)] * 10)
    table = stampede.ladder({"some": df}, seconds=30, readers=2)
    row = table.loc["some"].drop(["loads per minute_low", "loads per minute_high"])
    assert row.round(6).tolist() == [1, 4, 2, 10, 1, 1, round(100 / 60, 6), 0, 0]


def test_loads_have_a_whisker_only_where_expiries_differ_in_them():
    same = events(("load", 1.0, 1.1), ("load", 2.0, 2.1), ("load", 3.0, 3.1), ("read", 0.0, 0.1))
    more = pd.concat([same, events(("load", 3.0, 3.1))])
    table = stampede.ladder({"same": same, "differ": more}, seconds=30)
    low, rate, high = (table[f"loads per minute{end}"] for end in ("_low", "", "_high"))
    assert low["same"] == rate["same"] == high["same"] == 6
    assert low["differ"] < rate["differ"] == 8 < high["differ"]


def test_the_ladders_chart_has_a_whisker_each_and_marks_who_lets_all_load():
    df = events(("load", 1.0, 1.1), ("load", 2.0, 2.1), ("read", 0.0, 0.1))
    table = stampede.ladder({"some": df, "bare": pd.concat([df, df])}, seconds=30)
    ax = stampede.ladder_chart(table, "found", bad=["bare"])
    assert "some 4, bare 8" in ax.alt and len(ax.containers) == 2
    assert [line.get_marker() for line in ax.lines[::3]] == ["o", "s"]  # then two caps each


def test_a_reader_who_waits_to_the_end_counts_as_waiting_all_that_time():
    df = events(("load", 0.1, 0.2), ("read", 1.0, 9.0), ("read", 0.0, 0.1))
    wide = df.assign(seconds=df["ended"] - df["began"])
    assert stampede.stuck(wide, seconds=5) == 1 and stampede.stuck(wide, seconds=10) == 0
    table = stampede.ladder({"some": wide}, seconds=5, readers=1)
    assert table["readers wait %"].item() == pytest.approx(82)


def test_a_run_is_charted_on_the_same_axes_whatever_it_holds():
    one, two = (events(*[("load", 0.1, 0.2)] * n, ("read", 0.1, 0.2)) for n in (1, 9))
    figures = [stampede.chart(df, seconds=2).figure for df in (one, two)]
    assert "1 load an expiry, 1 at once" in figures[0].axes[0].alt
    same = [[(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes] for figure in figures]
    assert same[0] == same[1] and "9 loads an expiry, 9 at once" in figures[1].axes[0].alt


def test_loads_that_a_reader_waits_for_are_told_from_those_that_run_apart():
    load = ("load", 1.0, 2.0)
    assert stampede.waited_for(events(load, ("read", 0.9, 2.1))) == 1
    assert stampede.waited_for(events(load, ("read", 0.9, 1.1), ("read", 1.1, 2.1))) == 0


def test_the_title_of_a_run_in_which_a_load_died_says_who_waits_for_it():
    df = events(("load", 0.1, 2.1), ("read", 0.1, 2.1)).assign(seconds=2.0)
    alive, dead = (stampede.chart(df, seconds=2, has_died=died).figure for died in (False, True))
    assert "some: 1 load an expiry, 1 at once" in alive.axes[0].alt
    assert "some: 1 of 40 readers waits to the end" in dead.axes[0].alt


def test_of_xfetchs_chances_one_is_used_up_before_the_first_load_whatever_the_crowd():
    starts = stampede.early_loads([1, 50], [1, 2], windows=400)
    assert starts["used"].between(0.8, 1.2).all()
    many = starts[starts["reads"] == "50 a second"].set_index("beta")["loads"]
    assert many[1] == pytest.approx(exp(1), rel=0.2) and many[2] == pytest.approx(
        exp(1 / 2), rel=0.2
    )
    assert starts["loads"][0] < 0.7 * many[1]  # few readers make fewer loads


def loads(technique, **more):
    df = stampede.simulate(technique, seconds=30, **more)
    return (df["event"] == "load").sum(), stampede.under_way(df)["loads"].max()


def test_the_simulation_loads_once_an_expiry_with_a_lease_and_once_a_copy_with_single_flight():
    once, at_once = loads("lease")
    assert at_once == 1 and once == pytest.approx(30 / (stampede.TTL + stampede.LOAD), rel=0.05)
    copies, at_once = loads("single-flight", connections=9)
    assert at_once == stampede.COPIES and 3 * once < copies <= 4 * once


def test_the_simulation_has_a_crowd_without_a_guard_and_no_waiting_reader_with_stale_values():
    alone, at_once = loads("nothing")
    assert at_once > 10 and alone > 8 * loads("lease")[0]
    assert loads("nothing", readers=1)[1] == 1
    waits = stampede.simulate("stale-while-revalidate", seconds=30).query(
        "event == 'read' and ended > began"
    )
    assert len(waits) == 0


def test_the_simulation_repeats_itself_with_its_seed():
    assert stampede.simulate("XFetch").equals(stampede.simulate("XFetch"))
    assert not stampede.simulate("XFetch").equals(stampede.simulate("XFetch", seed=1))
