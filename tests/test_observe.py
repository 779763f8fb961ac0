"""What a server says of itself, as frames: right, bounded, and without a trace."""

import math
import shutil

import pandas as pd
import pytest
import redis
from conftest import PATIENT, at_best

import cachelab as cl
from cachelab.lab import observe

CHANGES = "rdb_changes_since_last_save"


@pytest.fixture(
    scope="module", params=[None, pytest.param("redis-server", marks=pytest.mark.further)]
)
def server(request):
    """The embedded server, and Debian's Redis 7.0, as both are in use."""
    if request.param and not shutil.which(request.param):
        pytest.skip("no redis-server")
    with cl.Server(binary=request.param, maxmemory="64mb") as server:
        yield server


@pytest.fixture
def lfu(client):
    client.config_set("maxmemory-policy", "allkeys-lfu")
    yield client
    client.config_set("maxmemory-policy", "noeviction")


def of(frame: pd.DataFrame, column: str, name: str) -> pd.Series:
    (row,) = frame.loc[frame[column] == name].to_dict("records")
    return row


def test_info_is_a_row_for_each_value_with_its_section(client):
    client.set("a", "1", ex=60)
    frame = observe.info(client)
    assert list(frame.columns) == ["section", "name", "value"]
    assert of(frame, "name", "role") == {
        "section": "replication",
        "name": "role",
        "value": "master",
    }
    assert of(frame, "name", "db0.keys")["value"] == of(frame, "name", "db0.expires")["value"] == 1
    assert set(observe.info(client, "memory", "stats")["section"]) == {"memory", "stats"}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", ["info", "commands", "latency", "memory", "keys"])
def test_a_client_that_does_not_decode_sees_the_same(server, client, name, protocol):
    look = getattr(observe, name)
    client.set("a", "1", ex=60), look(client)
    with redis.Redis.from_url(server.url, protocol=protocol) as plain:
        assert isinstance(plain.get("a"), bytes)  # it is what redis-py makes unasked
        first = [set(look(one).iloc[:, 0]) for one in (plain, client)]
    assert first[0] and first[0] <= first[1] and set(map(type, first[0])) == {str}


def test_what_grew_between_two_looks_is_told_and_a_count_that_began_anew_as_it_stands(client):
    before = observe.values(client, "stats")
    for _ in range(3):
        client.get("nothing")
    after = observe.values(client, "stats")
    assert observe.change(before, after)["keyspace_misses"] == 3
    client.config_resetstat()
    client.get("nothing")
    assert observe.change(after, observe.values(client, "stats"))["keyspace_misses"] == 1


def test_a_hit_rate_is_that_of_its_window_and_none_where_nothing_was_read(client):
    client.config_resetstat()
    fresh = client.info("stats")
    assert observe.hit_rate(None, fresh) is observe.hit_rate(fresh, fresh) is None
    with pytest.raises(ZeroDivisionError):  # control: the sum that is commonly shown
        fresh["keyspace_hits"] / (fresh["keyspace_hits"] + fresh["keyspace_misses"])
    client.set("a", "1")
    for key in ("a", "a", "a", "b"):
        client.get(key)
    later = client.info("stats")
    assert observe.hit_rate(fresh, later) == 0.75
    client.get("b")
    assert observe.hit_rate(later, client.info("stats")) == 0


def test_a_caches_own_hit_rate_is_told_for_a_window_so_it_is_by_prefix(client):
    caches = {
        prefix: cl.CacheAside(client, load=str.upper, ttl=60, prefix=prefix)
        for prefix in ("users:", "pages:")
    }
    caches["users:"].get("ada")
    before = {prefix: cache.stats for prefix, cache in caches.items()}
    for id in ("ada", "ada", "ada", "bob"):
        caches["users:"].get(id)
    rates = {
        prefix: observe.hit_rate(before[prefix], cache.stats) for prefix, cache in caches.items()
    }
    assert rates == {"users:": 0.75, "pages:": None}


def test_commands_are_counted_with_what_failed_and_since_a_first_look_only_new_ones(client):
    client.set("a", "1")
    before = observe.commands(client)
    for _ in range(7):
        client.get("a")
    with pytest.raises(redis.ResponseError):
        client.lpush("a", "1")
    frame = observe.since(before, observe.commands(client))
    assert of(frame, "command", "get")["calls"] == 7
    assert of(frame, "command", "lpush")["failed"] == 1
    assert "set" not in set(frame["command"])
    assert math.isclose(frame["share"].sum(), 1) and frame["usec"].is_monotonic_decreasing


def test_what_was_refused_before_it_ran_is_counted_apart(client):
    before = observe.commands(client)
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        client.set("a", "1")
    client.config_set("maxmemory", "64mb")
    row = of(observe.since(before, observe.commands(client)), "command", "set")
    assert (row["calls"], row["rejected"]) == (0, 1)


@pytest.fixture
def keeps_all(client):
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    yield client
    client.config_set("slowlog-log-slower-than", 10_000)


def test_slow_commands_are_shown_by_name_and_key_and_never_by_value(keeps_all):
    keeps_all.set("user:1", "sekret-value")
    keeps_all.execute_command("CONFIG", "SET", "maxmemory-samples", "5")
    keeps_all.set("k" * 100, "v")
    texts = observe.slow(keeps_all)["text"]
    assert "SET user:1 (1 more)" in set(texts)
    assert f"SET {'k' * 37}... (1 more)" in set(texts)
    assert "CONFIG (3 more)" in set(texts) and not texts.str.contains("sekret").any()


def test_what_was_large_is_shown_where_the_server_keeps_it_and_else_is_said_why_not(client):
    client.set("big", "x" * 2**21)
    frame = observe.slow(client)
    if "valkey_version" in client.info():
        row = of(frame, "kind", "large-request")
        assert (row["command"], row["unit"]) == ("set", "bytes") and row["amount"] > 2**21
        assert frame.attrs == {"commands": 3, "why": ""}
    else:
        assert "has no COMMANDLOG" in frame.attrs["why"] and set(frame["kind"]) <= {"slow"}


def test_a_key_that_is_no_text_is_shown_all_the_same(keeps_all):
    keeps_all.set(b"\xff\x00", "1")
    assert r"\xff" in " ".join(observe.slow(keeps_all)["text"])
    assert r"\xff" in observe.keys(keeps_all)["key"].iloc[0]


def test_latency_counts_the_calls_of_a_command_up_to_all_of_them(client):
    client.config_resetstat()
    for _ in range(20):
        client.get("a")
    frame = observe.latency(client, "get")
    assert frame["calls"].iloc[-1] == 20 and frame["share"].iloc[-1] == 1
    assert frame["usec"].is_monotonic_increasing


def test_events_are_shown_and_where_none_are_kept_it_says_so(client):
    assert "latency-monitor-threshold" in observe.events(client).attrs["why"]
    client.config_set("latency-monitor-threshold", 1)
    client.eval("for i = 1, 3000000 do local x = i * i end", 0)
    frame = observe.events(client)
    client.config_set("latency-monitor-threshold", 0)
    assert frame["max_ms"].max() >= 1 and frame.attrs["why"] == ""


def test_a_limit_that_is_not_set_is_no_limit_and_not_nought(client):
    frame = observe.memory(client)
    assert of(frame, "name", "limit")["value"] == 2**26
    assert 0 < of(frame, "name", "share")["value"] < 1
    client.config_set("maxmemory", 0)
    try:
        frame = observe.memory(client)
    finally:
        client.config_set("maxmemory", "64mb")
    limit, share = (of(frame, "name", name) for name in ("limit", "share"))
    assert limit["said"] == share["said"] == "no limit" and math.isnan(share["value"])


def test_keys_are_told_with_type_weight_and_what_they_have_left(client):
    client.set("a:1", "x" * 5000, ex=60)
    client.rpush("a:2", 1, 2)
    client.set("b:1", "x")
    frame = observe.keys(client, "a:")
    one, two = (of(frame, "key", key) for key in ("a:1", "a:2"))
    assert (one["type"], two["type"]) == ("string", "list")
    assert one["bytes"] > 5000 and 0 < one["ttl"] <= 60 and math.isnan(two["ttl"])
    assert len(frame) == 2 and frame.attrs["whole"]


def test_a_prefix_is_taken_as_it_is_written(client):
    client.mset({"a*:1": "", "ab:1": ""})
    assert list(observe.keys(client, "a*")["key"]) == ["a*:1"]


def test_a_sample_is_bounded_however_many_keys_there_are(client):
    client.mset({f"k:{number}": "x" for number in range(5000)})
    before = client.info("stats")["total_commands_processed"]
    frame = observe.keys(client, sample=200)
    used = client.info("stats")["total_commands_processed"] - before - 1
    assert len(frame) == 200 and not frame.attrs["whole"] and "a sample" in frame.attrs["why"]
    assert used == frame.attrs["commands"] < 1100


def test_a_search_for_a_rare_prefix_is_bounded_too(client):
    client.mset({f"k:{number}": "x" for number in range(5000)})
    frame = observe.keys(client, "nowhere:", sample=100)
    assert len(frame) == 0 and frame.attrs["commands"] == 10 and not frame.attrs["whole"]


def test_the_biggest_keys_come_first(client):
    client.mset({"a": "x" * 10, "b": "x" * 100_000, "c": "x" * 1000})
    frame = observe.big_keys(client, top=2)
    assert list(frame["key"]) == ["b", "c"] and frame["share"].iloc[0] > 0.9


def test_the_hottest_keys_are_known_under_a_policy_that_counts(lfu):
    lfu.mset({f"k:{number}": "x" for number in range(50)})
    for _ in range(2000):
        lfu.get("k:7")
    frame = observe.hot_keys(lfu)
    assert frame["key"].iloc[0] == "k:7" and frame["share"].iloc[0] > 0.8
    assert 500 < frame["reads"].iloc[0] < 8000


def test_under_another_policy_it_says_that_nobody_counts(client):
    client.set("a", "x")
    frame = observe.hot_keys(client)
    assert frame["reads"].isna().all() and "no LFU policy" in frame.attrs["why"]


def test_looking_changes_nothing_and_uses_no_key(client):
    client.config_set("maxmemory-policy", "allkeys-lfu")
    client.set("a", "x", ex=60)
    before = client.execute_command("OBJECT FREQ", "a"), client.info("persistence")[CHANGES]
    for look in (observe.keys, observe.big_keys, observe.hot_keys):
        look(client)
    after = client.execute_command("OBJECT FREQ", "a"), client.info("persistence")[CHANGES]
    client.get("a")
    assert before == after
    assert client.execute_command("OBJECT FREQ", "a") > after[0]  # control: a use is seen
    client.config_set("maxmemory-policy", "noeviction")


def test_prefixes_share_keys_bytes_and_what_never_expires(client):
    client.mset({"a:1": "x" * 9000, "a:2": "x", "plain": "x"})
    client.set("b:1", "x", ex=60)
    frame = observe.by_prefix(observe.keys(client))
    assert list(frame["prefix"])[0] == "a:" and set(frame["prefix"]) == {"a:", "b:", ""}
    assert of(frame, "prefix", "a:")["keys"] == 2
    assert (of(frame, "prefix", "a:")["immortal"], of(frame, "prefix", "b:")["immortal"]) == (1, 0)


def test_looks_follow_each_other_and_each_is_noted(client):
    noted = []

    def note(frame):
        noted.append(len(frame))
        client.get("nothing")

    frame = observe.sampled(client, seconds=0.3, every=0.1, note=note)
    assert noted == list(range(1, len(frame) + 1))
    assert math.isnan(frame["hit_rate"].iloc[0]) and (frame["hit_rate"].iloc[1:] == 0).all()
    assert (frame["clients"] >= 1).all() and frame["at"].is_monotonic_increasing


def test_while_a_server_does_not_answer_the_looks_go_on(client, server):
    hasty = cl.connect(server.url, timeout=0.2, retries=0)

    def note(frame):
        if len(frame) == 1:
            server.freeze()
        if len(frame) == 3:
            server.thaw()
            client.ping()

    def holds():
        try:
            looks = observe.sampled(hasty, seconds=1, every=0.05, note=note)["commands"]
        except redis.RedisError:  # the first look of all
            return False
        finally:
            server.thaw()
        return looks.iloc[1:3].isna().all() and looks.iloc[3:].notna().any()

    assert at_best(holds)


def test_a_callers_wait_stands_beside_the_servers_time_and_is_longer(client):
    frame = observe.beside(client, lambda: client.get("a"), "get", times=100).set_index("side")
    assert list(frame["n"]) == [100, 100]
    assert frame.loc["client", "p50_usec"] > frame.loc["server", "p50_usec"]


def test_a_call_that_sends_something_else_is_refused(client):
    with pytest.raises(ValueError, match="call must send 'set' each time: 0 in 3 calls"):
        observe.beside(client, lambda: client.get("a"), "set", times=3)


def test_a_user_who_may_not_ask_gets_nothing_or_the_servers_refusal(client, server):
    client.set("a", "x")
    rights = ["+scan", "+ttl", "+pttl", "+config|get"]
    client.acl_setuser("eve", enabled=True, passwords=["+pw"], keys=["*"], commands=rights)
    eve = cl.connect(f"redis://eve:pw@127.0.0.1:{server.port}", check=False, timeout=PATIENT)
    row = observe.keys(eve).iloc[0]
    assert row["type"] == "unknown" and math.isnan(row["bytes"])
    for look in (observe.info, observe.commands, observe.slow, observe.latency, observe.memory):
        with pytest.raises(redis.exceptions.NoPermissionError):
            look(eve)
    client.acl_deluser("eve")


def test_of_a_cluster_one_node_is_asked(monkeypatch, client):
    monkeypatch.setattr(observe, "is_cluster", lambda client: True)
    with pytest.raises(TypeError, match="get_redis_connection"):
        observe.info(client)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda client: observe.keys(client, sample=0), "sample must be at least 1"),
        (lambda client: observe.keys(client, prefix=5), "prefix must be a str"),
        (lambda client: observe.slow(client, count=True), "count must be a whole number"),
        (lambda client: observe.sampled(client, 0), "seconds must be greater than 0"),
        (lambda client: observe.sampled(client, 1, every=0), "every must be greater than 0"),
    ],
)
def test_bad_arguments_are_refused(client, call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call(client)
