"""A trace replayed against real servers: counted alike by both sides, paced by the clock."""

import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import redis

import cachelab as cl
from cachelab.lab import policies, replay, workload


def whole(df: pd.DataFrame) -> pd.DataFrame:
    """The rows for all prefixes together."""
    return df[df["prefix"] == "all"]


def test_requests_see_what_one_client_would_see_that_waits_for_every_answer(server, client):
    trace = np.array([0, 0, 1, 0, 2, 2, 1, 0])
    df = replay.run(server.url, trace, value_bytes=10, windows=1)
    one_by_one = [
        bool(client.set(f"one:{id}", "x" * 10, nx=True)) for id in trace.tolist()
    ]  # set: it was a miss
    assert df["hits"].tolist()[0] == len(trace) - sum(one_by_one) == 5
    assert client.get("item:2") == "x" * 10 and client.ttl("item:2") == -1


def test_application_and_server_count_the_same_in_every_window(server, client):
    df = whole(replay.run(server.url, workload.zipf(2000, 100, 0.9), windows=8))
    assert len(df) == 8 and (df["requests"] == 250).all()
    assert (df["hits"] == df["server_hits"]).all() and (
        df["requests"] - df["hits"] == df["server_misses"]
    ).all()
    assert (df["hit_rate"] == df["hits"] / df["requests"]).all() and (df["evicted"] == 0).all()
    assert df["keys"].iloc[-1] == 100 and df["seconds"].is_monotonic_increasing


def test_prefixes_are_counted_apart_and_add_up(server, client):
    trace = workload.with_scans(workload.zipf(400, 20), every=100, length=30)
    df = replay.run(
        server.url,
        trace,
        10,
        names=lambda id: f"scan:{id}" if id >= 20 else f"user:{id}",
        windows=4,
    )
    parts = df[df["prefix"] != "all"]
    assert set(parts["prefix"]) == {"scan", "user"} and parts["keys"].isna().all()
    assert parts.groupby("window")["hits"].sum().tolist() == whole(df)["hits"].tolist()
    assert parts[parts["prefix"] == "scan"]["requests"].sum() == 120


def test_keys_without_a_colon_share_no_prefix(server, client):
    df = replay.run(server.url, [1, 2, 1], 10, names=lambda id: f"/page/{id}", windows=1)
    assert df[["prefix", "requests", "hits"]].to_numpy().tolist() == [["all", 3, 1], ["", 3, 1]]


def test_a_prefix_that_is_called_all_is_told_from_all_prefixes(server, client):
    names = {1: "all:1", 2: "user:1"}
    df = replay.run(server.url, [1, 2, 1], 10, names=names.__getitem__, windows=1)
    assert df.set_index("prefix")["requests"].to_dict() == {"all": 3, "all:": 2, "user": 1}


def test_two_ids_may_have_one_key_and_a_key_any_characters(server, client):
    assert replay.run(server.url, [1, 2], 10, names=lambda id: "\r\n{} \0:ü", windows=1)[
        "hits"
    ].tolist() == [1, 1]


def test_values_may_be_empty_or_larger_than_a_batch_usually_is(server, client):
    assert (
        replay.run(server.url, [1, 2, 1, 2], [0, 5_000_000, 0, 5_000_000], windows=1)["hits"][0]
        == 2
    )


def test_a_value_that_has_expired_is_a_miss_on_both_sides(server, client):
    df = replay.run(server.url, [1, 1], 10, times=[0, 0.3], ttl=0.05, windows=1)
    assert (df["hits"][0], df["server_hits"][0], df["server_misses"][0]) == (0, 0, 2)


def test_values_have_their_sizes_and_their_time_to_live(server, client):
    replay.run(server.url, np.array([0, 1]), np.array([5, 700]), ttl=30)
    assert (client.strlen("item:0"), client.strlen("item:1")) == (5, 700) and 10_000 < client.pttl(
        "item:1"
    ) <= 30_000


def test_a_full_server_evicts_and_one_that_must_not_refuses_and_goes_on_serving_hits():
    trace = workload.zipf(6000, 2000, 0.9)
    df = whole(replay.side_by_side(["allkeys-lru", "noeviction", "volatile-ttl"], trace, rooms=300))
    late = df[df["window"] >= 10].groupby("policy")[["evicted", "refused", "hits", "keys"]].sum()
    assert late.loc["allkeys-lru", "evicted"] > 500 and late.loc["allkeys-lru", "refused"] == 0
    for policy in (
        "noeviction",
        "volatile-ttl",
    ):  # the second has nothing with a time to live to evict
        assert (
            late.loc[policy, "refused"] > 500
            and late.loc[policy, "evicted"] == 0
            and late.loc[policy, "hits"] > 500
        )
    assert (late["keys"] / 10).between(270, 360).all()


def test_with_a_time_to_live_volatile_policies_evict():
    df = replay.side_by_side(["volatile-ttl"], workload.zipf(3000, 2000, 0.9), rooms=300, ttl=600)
    assert df["refused"].sum() == 0 < df["evicted"].sum()


def test_room_for_more_keys_is_more_room():
    few, many = replay.room_for(200), replay.room_for(1200)
    assert 1000 * 1000 < many - few < 1500 * 1000


def test_room_has_no_limit_of_its_own():
    assert (
        replay.room_for(60, 5_000_000) > 60 * 5_000_000
    )  # more than a server takes unless told otherwise


@pytest.mark.parametrize("trouble", ["kill", "freeze"])
def test_a_server_that_goes_away_ends_the_replay_with_an_error(monkeypatch, trouble):
    monkeypatch.setattr(replay, "TIMEOUT", 1.0)
    with cl.Server() as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            replay.run, server.url, np.arange(10_000), 10, times=np.arange(10_000) / 20
        )
        while not running.done() and not cl.connect(server.url, timeout=5).dbsize():
            pass
        getattr(server, trouble)()
        with pytest.raises(redis.RedisError):
            running.result()


def test_one_replay_that_fails_ends_those_beside_it_and_their_servers():
    asked, threads = [], threading.active_count()

    def names(id):
        asked.append(id)
        if len(asked) == 2:  # the second server's only key
            raise KeyboardInterrupt
        return "item:1"

    with pytest.raises(KeyboardInterrupt):
        replay.side_by_side(
            ["allkeys-lru", "noeviction"],
            np.ones(10_000),
            10,
            names=names,
            times=np.arange(10_000) / 20,
        )
    assert threading.active_count() == threads


def test_an_interrupt_ends_replays_by_the_clock_that_would_last_for_minutes():
    threads, lasts = threading.active_count(), 500

    def interrupt():
        while threading.active_count() < threads + 5:  # this thread, and four that replay
            pass
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        times = np.linspace(0, lasts, 1000)
        replay.side_by_side(["allkeys-lru", "allkeys-lfu"], np.arange(1000), [9, 99], times=times)
    assert time.monotonic() - start < lasts / 2 and threading.active_count() == threads


def test_a_replay_that_is_watched_tells_how_far_it_is_and_stops_when_told(server, client):
    watch = replay.Watch()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            replay.run, server.url, np.arange(1000), 10, times=np.arange(1000) / 20, watch=watch
        )
        while not watch.done and not running.done():
            pass
        watch.stop.set()
        with pytest.raises(replay.Stopped):
            running.result()
    assert 0 < watch.done < 1000


def test_traces_and_rooms_are_replayed_each_on_a_server_of_its_own():
    traces = {"thrice": np.zeros(3, int), "scan": workload.scan(500, 500)}
    df = whole(replay.side_by_side(["allkeys-random"], traces, [50, 100], windows=1))
    told = df.set_index(["trace", "room"])
    assert told["hits"].to_dict() == {
        ("thrice", 50): 2,
        ("thrice", 100): 2,
        ("scan", 50): 0,
        ("scan", 100): 0,
    }
    assert 0 < told.loc[("scan", 50), "keys"] < told.loc[("scan", 100), "keys"] < 500
    assert "trace" not in replay.side_by_side(["noeviction"], [1], 9)


def test_the_servers_are_configured_as_was_asked_for():
    with pytest.raises(cl.ServerError, match="maxmemory-samples"):
        replay.side_by_side(["allkeys-lru"], [1], 9, config={"maxmemory_samples": 0})


@pytest.mark.parametrize(
    ("policies", "rule"),
    [
        ([], "number of policies must be at least 1"),
        ("allkeys-lru", "several texts"),
        (["lru"], "must be one of"),
    ],
)
def test_policies_are_several_that_the_server_offers(policies, rule):
    with pytest.raises((ValueError, TypeError, cl.ServerError), match=rule):
        replay.side_by_side(policies, [1], 10)


def test_rooms_of_none_are_refused():
    with pytest.raises(ValueError, match="number of replays must be at least 1"):
        replay.side_by_side(["allkeys-lru"], [1], [])


def test_a_server_that_refuses_to_be_configured_offers_nothing(server, client):
    client.acl_setuser(
        "guest", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"]
    )
    try:
        with pytest.raises(redis.exceptions.NoPermissionError):
            replay.offered(server.url.replace("redis://:", "redis://guest:"))
    finally:
        client.acl_deluser("guest")


def test_the_server_says_which_policies_it_offers(server):
    known = {
        "noeviction",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-ttl",
    }
    assert known <= set(replay.offered(server.url)) and cl.connect(server.url).config_get(
        "maxmemory-policy"
    )


def test_by_the_clock_requests_go_out_when_they_are_due(server, client):
    times = workload.arrivals(300, rate=300)
    df = whole(replay.run(server.url, workload.zipf(300, 30), times=times, windows=3))
    assert (df["seconds"] >= times[[99, 199, 299]] - times[0]).all() and (
        df["late_seconds"] > 0
    ).all()


def test_the_times_of_a_log_count_from_its_first_request(server, client):
    df = replay.run(server.url, [1, 2], times=[1_800_000_000.0, 1_800_000_000.1], windows=1)
    assert 0.1 <= df["seconds"][0] < 1_800_000_000


# Seconds in which the server's LRU clock, which ticks once a second, tells old keys from new ones.
SLOW = 12.0


def test_by_the_clock_lru_comes_close_to_exact_lru_as_a_fast_replay_does_not():
    trace, half = workload.zipf(9600, 3000, 0.9), 4800
    rate, held = {}, {}
    for pace, times in (
        ("fast", None),
        ("paced", workload.arrivals(len(trace), len(trace) / SLOW)),
    ):
        df = whole(
            replay.side_by_side(
                ["allkeys-lru", "allkeys-lfu"],
                trace,
                rooms=500,
                config={"maxmemory_samples": 10},
                times=times,
            )
        )
        late = df[df["window"] >= 10].groupby("policy")
        rate |= {(pace, policy): value for policy, value in late["hit_rate"].mean().items()}
        held |= {(pace, policy): value for policy, value in late["keys"].mean().items()}
    exact = {
        pace: policies.simulate("LRU", trace, round(held[pace, "allkeys-lru"]))[half:].mean()
        for pace in ("fast", "paced")
    }
    assert abs(rate["paced", "allkeys-lru"] - exact["paced"]) < 0.03
    assert rate["fast", "allkeys-lru"] < exact["fast"] - 0.03  # the control
    assert rate["paced", "allkeys-lfu"] > rate["paced", "allkeys-lru"]


@pytest.mark.further
def test_debians_redis_counts_and_evicts_alike():
    if not (binary := shutil.which("redis-server")):
        pytest.skip("needs a redis-server on the PATH: apt-get install redis-server")
    with cl.Server(binary=binary, maxmemory="2mb", maxmemory_policy="allkeys-random") as server:
        df = whole(replay.run(server.url, workload.zipf(5000, 3000, 0.9)))
        assert (
            (df["hits"] == df["server_hits"]).all()
            and df["evicted"].sum() > 100
            and not df["refused"].sum()
        )
        assert "volatile-lfu" in replay.offered(server.url)


@pytest.mark.parametrize(
    "arguments",
    [
        {"trace": []},
        {"trace": [[1]]},
        {"times": [1.0]},
        {"times": [2.0, 1.0]},
        {"times": [0, float("nan")]},
        {"windows": 0},
        {"windows": 2.5},
        {"ttl": 0},
        {"ttl": "5"},
        {"value_bytes": -1},
        {"value_bytes": 1.5},
        {"value_bytes": [1, 2, 3]},
        {"value_bytes": None},
        {"names": int},
        {"names": "\udcff{}".format},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(server, client, arguments):
    with pytest.raises((ValueError, TypeError), match="must be"):
        replay.run(server.url, **{"trace": [1, 2]} | arguments)
    assert client.dbsize() == 0


def test_an_error_of_the_server_is_not_taken_for_a_miss(server, client):
    client.lpush("item:1", "a list")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        replay.run(server.url, [1])
