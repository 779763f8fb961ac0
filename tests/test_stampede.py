"""The workload of the stampede counts what it should, with a cache that guards and with one that does not."""

import threading

import pandas as pd
import pytest

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
    return pd.DataFrame(rows, columns=["event", "began", "ended"]).assign(technique="some", age=0.0, seconds=0.001)


def test_a_crowd_before_a_cold_key_loads_once_each_without_a_guard_and_once_with_a_lease(make, client):
    assert stampede.crowd(make["bare"], readers=20, copies=2, seconds=1.0) == 20
    client.delete("cold")
    assert stampede.crowd(make["leased"], readers=20, copies=2, seconds=0.2) == 1


def test_a_run_tells_every_read_with_the_age_of_its_answer_and_every_load_after_the_start(make, client):
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
    assert (reads["age"] >= 0).all() and (df["ended"] >= df["began"]).all() and (df["began"] >= 0).all()


def test_a_load_that_dies_holds_up_only_those_who_wait_for_it(client):
    def make(load):
        return lambda id: load(id) if (client.incr("reads") == 6) else repr(0.0)  # 1 + 4 reads open the connections

    df = stampede.run("dies", make, lambda id: None, seconds=0.3, copies=2, readers=2, pause=0.01, dies=1)
    slow = df[df["seconds"] > 0.1]
    assert sorted(slow["event"]) == ["load", "read"] and slow["ended"].min() >= 0.3
    assert len(df) > 6


def test_an_error_of_a_technique_is_raised(client):
    with pytest.raises(ZeroDivisionError):
        stampede.run("broken", lambda load: lambda id: 1 / 0, lambda id: None, seconds=0.1)


def test_loads_under_way_are_counted_from_their_begin_to_their_end():
    df = events(("load", 1.0, 3.0), ("load", 2.0, 4.0), ("read", 1.0, 9.0))
    assert stampede.under_way(df).values.tolist() == [[0, 0], [1, 1], [2, 2], [3, 1], [4, 0]]


def test_loads_that_begin_close_together_belong_to_one_expiry_however_long_they_take():
    near, far = 0.4 * stampede.TTL, 0.6 * stampede.TTL
    begins = [0.0, near, 2 * near, 2 * near + far]
    assert stampede.an_expiry(events(*[("load", at, 9.0) for at in begins], ("read", 5.0, 6.0))) == 2
    assert stampede.an_expiry(events(("load", 1.0, 2.0))) == 1 and stampede.an_expiry(events(("read", 0.0, 1.0))) == 0


def test_the_ladder_has_a_row_for_each_run():
    df = events(("load", 0.5, 3.0), ("load", 2.0, 4.0), *[("read", 0.1, 0.2)] * 10)
    table = stampede.ladder({"some": df}, seconds=30)
    assert table.loc["some"].round(6).tolist() == [1, 4, 2, 10, 1, 1, 0]


def test_a_run_is_charted_on_the_same_axes_whatever_it_holds():
    one, two = (events(*[("load", 0.1, 0.2)] * n, ("read", 0.1, 0.2)) for n in (1, 9))
    figures = [stampede.chart(df, seconds=2).figure for df in (one, two)]
    assert "1 load an expiry, 1 at once" in figures[0].axes[0].alt
    same = [[(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes] for figure in figures]
    assert same[0] == same[1] and "9 loads an expiry, 9 at once" in figures[1].axes[0].alt


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
    waits = stampede.simulate("stale-while-revalidate", seconds=30).query("event == 'read' and ended > began")
    assert len(waits) == 0


def test_the_simulation_repeats_itself_with_its_seed():
    assert stampede.simulate("XFetch").equals(stampede.simulate("XFetch"))
    assert not stampede.simulate("XFetch").equals(stampede.simulate("XFetch", seed=1))
