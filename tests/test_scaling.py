"""The bench of 12 and 12b: copies that lag, one breaker for all shards, a moving slot, work."""

import pandas as pd
import pytest

import cachelab as cl
from cachelab.lab import scaling
from cachelab.server.node import wait_for

ROWS = dict(cl.generate_users(60, seed=0))


@pytest.fixture(scope="module")
def cluster():
    with cl.Cluster(replicas=0) as cluster:
        yield cluster


@pytest.fixture
def cache(cluster):
    return cl.CacheAside(cl.connect(cluster.url), load=ROWS.get, ttl=60)


def test_what_is_written_after_copies_fell_behind_is_lost_with_the_primary():
    with cl.Sentinel(replicas=1, down_after=0.5) as ha:
        (leader, copy), client = ha.nodes[:2], cl.connect(ha.url)
        assert scaling.primary(ha) is leader and scaling.replicas(ha) == [copy]
        client.set("before", 1)
        assert client.wait(1, 1000) == 1  # control: the copy has what came earlier
        scaling.fall_behind(leader, [copy])
        client.set("after", 1)
        scaling.die_behind(leader, [copy], pause=0)
        wait_for(lambda: copy.role == "primary", "no fail-over")
        assert copy.ask(("GET", "before"), ("GET", "after")) == ["1", None]


def test_a_set_without_a_primary_says_so():
    with cl.Sentinel(replicas=1, sentinels=1) as ha:
        ha.nodes[0].kill()
        with pytest.raises(LookupError, match="has no primary now"):
            scaling.primary(ha)


def test_shards_share_a_breaker_only_when_that_is_asked_for(cluster, cache):
    cache.warm(ROWS)
    alone = {gate.breaker for gate in cache._gates.split(ROWS)}
    shared = scaling.one_breaker(cache)
    assert len(alone) == 3 and len({gate.breaker for gate in shared._gates.split(ROWS)}) == 1
    assert shared.get_many(ROWS) == ROWS


def test_work_counts_the_commands_and_trips_of_each_node_and_not_its_own_looks(cluster, cache):
    cache.warm(ROWS)
    nothing = scaling.work(cluster.nodes, lambda: None)
    assert nothing[["commands", "trips"]].eq(0).all(axis=None)
    many = scaling.work(cluster.nodes, lambda: cache.get_many(ROWS))
    assert many["commands"].sum() == 60 and many["trips"].tolist() == [1, 1, 1]
    single = scaling.work(cluster.nodes, lambda: [cache.get(id) for id in ROWS])
    assert single["trips"].sum() == 60 and (single["seconds"] > 0).all()


def test_a_slot_moves_key_by_key_and_is_asked_for_where_it_is(cluster):
    client = cl.connect(cluster.url)
    keys = ["{tag}:1", "{tag}:2"]
    for key in keys:
        client.set(key, "value")
    slot = client.keyslot(keys[0])
    home, target, other = sorted(
        cluster.nodes, key=lambda node: scaling.answer(node, keys[0]) != "has it"
    )
    seen = {
        step: [scaling.answer(node, keys[0]) for node in (home, target)]
        for step in scaling.move_slot(cluster, slot, target)
        if step != keys[1]
    }
    assert seen == {
        "open": ["has it", "MovedError"],
        keys[0]: ["AskError", "MovedError"],
        "closed": ["MovedError", "has it"],
    }
    assert scaling.answer(target, "{tag}:3") == "nothing"
    assert [client.get(key) for key in keys] == ["value", "value"]
    with pytest.raises(ValueError, match="does not have slot"):
        next(scaling.move_slot(cluster, slot, target))


def test_what_happened_is_counted_in_each_interval_and_zero_too():
    reads = pd.DataFrame({"began": [0.1, 0.2, 0.9], "outcome": ["served", "stale", "served"]})
    counts = scaling.over_time(reads, every=0.4).pivot(
        index="began", columns="outcome", values="count"
    )
    assert counts.to_dict("list") == {"served": [1, 0, 1], "stale": [1, 0, 0]}
    ax = scaling.chart(reads, "one is stale", "reads")
    assert ax.get_ylabel() == "reads in 0.25 s" and "stale" in ax.alt
