"""Faults that are caused one after the other, and a server in use that is watched."""

import time

import pandas as pd
import pytest

import cachelab as cl
from cachelab.lab import drill
from cachelab.lab.watch import live
from cachelab.lab.watch.evaluate import firing, holding
from cachelab.lab.watch.rules import Rule, copied, rules
from cachelab.lab.watch.scrapes import Scrapes

ABOVE = Rule("Above", "level > 1", 0, "critical", "It is high.")


@pytest.fixture(scope="module")
def server():
    with cl.Server(maxmemory_policy="allkeys-lru") as server:
        yield server


def until(holds) -> bool:
    """Wait until something holds, half a minute at most."""
    for _ in range(600):
        if holds():
            return True
        time.sleep(0.05)
    return False


def levels(*values: float) -> pd.DataFrame:
    rows = [(float(time), "level", "", float(value)) for time, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["time", "metric", "labels", "value"])


def scrape(url: str, name: str) -> list[float]:
    scrapes = Scrapes({"redis": drill.exporter(url)})
    now = scrapes.look()["time"].iloc[-1]
    return holding(name, scrapes.frame, now)["value"].tolist()


def test_info_is_told_by_the_names_of_redis_exporter(server):
    cl.connect(server.url).get("absent")
    assert scrape(server.url, "redis_up") == [1]
    assert scrape(server.url, "redis_keyspace_misses_total") == [1]
    assert scrape(server.url, 'redis_instance_info{maxmemory_policy="allkeys-lru"}') == [1]


def test_a_server_that_refuses_is_not_up_and_of_a_frozen_one_nothing_is_told(server):
    gone = cl.Server().start()
    url = str.__str__(gone.url)
    gone.stop()
    assert scrape(url, "redis_up") == [0] and scrape(url, "up") == [1]
    server.freeze()
    try:
        assert scrape(server.url, "redis_up") == [] and scrape(server.url, "up") == [0]
    finally:
        server.thaw()


def test_an_outcome_is_what_begins_to_fire_in_a_fault_and_after_how_many_scrapes():
    df = levels(2, 0, 0, 0, 2, 2, 0)
    seen = drill.outcome([ABOVE], df, {"calm": (0.5, 2.5), "high": (2.5, 5.5)})
    assert seen.to_dict("list") == {"fault": ["high"], "alert": ["Above"], "scrapes": [2]}


def test_over_time_counts_the_rules_that_fire_at_each_scrape():
    below = Rule("Below", "level < 1", 0, "critical", "It is low.")
    seen = drill.over_time({"one": [ABOVE], "two": [ABOVE, below]}, levels(2, 0, 1))
    assert seen["alerts"].tolist() == [1, 0, 0, 1, 1, 0]


def test_a_fault_that_is_caused_fires_ours_and_one_that_is_not_does_not():
    df, spans = drill.drill(["wrong password"])
    ours = drill.outcome(rules(0.5), df, spans)
    assert set(ours["alert"]) == {"WrongPassword"} and list(spans) == ["wrong password"]
    assert drill.outcome(copied(0.5), df, spans).empty  # the control
    (begin,) = firing(rules(0.5), df)["begin"]
    assert spans["wrong password"][0] < begin


@pytest.mark.parametrize("policy", live.POLICIES)
def test_a_server_in_use_shows_what_is_put_on_it_and_leaves_nothing(policy):
    watched = live.Live(policy)
    try:
        assert until(lambda: len(watched.frame) >= 2)
        assert watched.frame["evicted"].max() == 0
        watched.turn("fill")
        full = "errors" if policy == "noeviction" else "evicted/s"
        assert until(lambda: watched.numbers()[full] != "0")
        watched.turn("fill")
        assert watched.on == {} and set(watched.recent()["number"]) == {"hit rate", "memory used"}
    finally:
        watched.close()
    assert not any(thread.is_alive() for thread in watched._threads)
