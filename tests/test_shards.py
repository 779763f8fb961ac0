"""Commands of many keys, straight to the nodes of a real cluster that hold them."""

import asyncio
import gc
import time
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
from conftest import at_best
from test_failures import limited

import cachelab as cl
from cachelab.clients import shards
from cachelab.lab import replay, workload
from cachelab.lab.measure.link import Link

# redis-py's asyncio client, cut off amid a call, leaves its transport to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

KEYS = [f"key-{n}" for n in range(60)]  # of all shards
GETS = [(key, ("GET", key)) for key in KEYS]
SETS = [(key, ("SET", key, key.upper())) for key in KEYS]
VALUES = [key.upper().encode() for key in KEYS]


@pytest.fixture(scope="module")
def cluster():
    with cl.Cluster(replicas=0, links=Link, cluster_require_full_coverage=True) as cluster:
        yield cluster
    gc.collect()  # here, and not amid a test of another file


def settings(cluster) -> dict:
    place = urlsplit(cluster.nodes[0].url)
    return {
        "port": cluster.nodes[0].announced,
        "password": place.password,
        "socket_timeout": 0.5,
        "require_full_coverage": False,
    }


@pytest.fixture
def plain(cluster):
    with redis.RedisCluster("127.0.0.1", **settings(cluster)) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["sync", "async"])
def flavour(request, cluster, plain):
    """A function that takes steps with a client of either kind: commands, or what is done to it."""

    def run(*steps) -> list:
        if request.param == "sync":
            return [
                step(plain) if callable(step) else shards.exchange(plain, step) for step in steps
            ]

        async def main():
            client = redis.asyncio.RedisCluster("127.0.0.1", **settings(cluster))
            try:
                return [
                    step(client) if callable(step) else await shards.exchange_async(client, step)
                    for step in steps
                ]
            finally:
                await client.aclose()

        return asyncio.run(main())

    return run


def asked(cluster, what: str) -> int:
    """How often the nodes were asked for something."""
    stats = [node.ask(("INFO", "commandstats"))[0] for node in cluster.nodes]
    return sum(one.get(f"cmdstat_{what}", {"calls": 0})["calls"] for one in stats)


def test_replies_come_in_the_order_of_the_commands_whichever_node_they_come_from(flavour):
    written, read = flavour(SETS, GETS)
    assert written == [b"OK"] * 60 and read == VALUES


def test_an_error_of_one_command_is_its_reply_and_spoils_no_other(flavour):
    odd = [*GETS[:3], ("key-0", ("LPUSH", "key-0", "a"))]
    *values, error = flavour(SETS, odd)[1]
    assert values == VALUES[:3] and "WRONGTYPE" in str(error)


def test_all_nodes_are_sent_to_before_the_first_reply_is_read(cluster, flavour, plain):
    def straight() -> None:
        by_node: dict = {}
        for key in KEYS:
            by_node.setdefault(plain.get_node_from_key(key), []).append(key)
        assert len(by_node) == 3
        for node, keys in by_node.items():
            pipeline = plain.get_redis_connection(node).pipeline(transaction=False)
            for key in keys:
                pipeline.get(key)
            pipeline.execute()

    def slowly(_=None) -> float:
        for node in cluster.nodes:
            node.link.rtt_ms = 100
        return time.monotonic()

    def took() -> float:
        *_, began, _, ended = flavour(GETS, slowly, GETS, lambda _: time.monotonic())
        return ended - began

    try:
        assert at_best(lambda: 0.1 <= took() < 0.2)
        began = slowly(straight())
        straight()
        assert time.monotonic() - began >= 0.3
    finally:
        for node in cluster.nodes:
            node.link.rtt_ms = 0


def rotate(client) -> None:
    """Have a client look for every slot where it is not."""
    cache = client.nodes_manager.slots_cache
    nodes = list({id(nodes): nodes for nodes in cache.values()}.values())
    after = {id(one): other for one, other in zip(nodes, nodes[1:] + nodes[:1], strict=True)}
    client.nodes_manager.slots_cache = {slot: after[id(nodes)] for slot, nodes in cache.items()}


def test_what_has_moved_is_found_and_the_slots_are_asked_for_once(cluster, flavour, monkeypatch):
    flavour(SETS)
    before = asked(cluster, "cluster|slots")
    _, _, read, again = flavour(GETS, rotate, GETS, GETS)
    assert read == again == VALUES
    assert asked(cluster, "cluster|slots") - before <= 2  # the asyncio client's first included
    monkeypatch.setattr(shards, "TRIES", 1)
    *_, lost = flavour(GETS, rotate, GETS)
    assert {type(reply) for reply in lost} == {redis.exceptions.MovedError}


def migrating(cluster, key: str) -> tuple:
    """Begin to move the slot of a key; return who has it, who gets it, and the slot."""
    slot = redis.crc.key_slot(key.encode())
    names = {node: node.ask(("CLUSTER", "MYID"))[0] for node in cluster.nodes}
    ranges = cluster.nodes[0].ask(("CLUSTER", "SLOTS"))[0]
    [port] = [node[1] for first, last, node in ranges if first <= slot <= last]
    [source] = [node for node in names if node.announced == port]
    target = next(node for node in names if node is not source)
    target.ask(("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source]))
    source.ask(("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target]))
    return source, target, slot


def settle(cluster, owner, slot) -> None:
    """End the move of a slot."""
    name = owner.ask(("CLUSTER", "MYID"))[0]
    for node in (owner, *(node for node in cluster.nodes if node is not owner)):
        node.ask(("CLUSTER", "SETSLOT", slot, "NODE", name))


def test_a_key_that_has_left_before_its_slot_is_asked_for_where_it_went(
    cluster, flavour, monkeypatch
):
    flavour(SETS)
    source, target, slot = migrating(cluster, "key-7")
    try:
        move = ("MIGRATE", "127.0.0.1", target.port, "key-7", 0, 1000)
        source.ask((*move, "AUTH", urlsplit(target.url).password))
        assert flavour(GETS)[0] == VALUES
        monkeypatch.setattr(shards, "TRIES", 1)
        assert type(flavour(GETS)[0][7]) is redis.exceptions.AskError
    finally:
        settle(cluster, target, slot)


TRY_AGAIN = """
if redis.call('INCR', KEYS[1]) < 3 then return redis.error_reply('TRYAGAIN in a moment') end
return 'there'
"""


def test_what_is_to_be_tried_again_is_and_not_for_ever(flavour):
    command = ("count", ("EVAL", TRY_AGAIN, "1", "count"))
    assert flavour([command])[0] == [b"there"]
    never = ("k", ("EVAL", "return redis.error_reply('TRYAGAIN in a moment')", "1", "k"))
    [[error]] = flavour([never])
    assert isinstance(error, redis.exceptions.TryAgainError)


def state(cluster) -> set[str]:
    infos = [node.ask(("CLUSTER", "INFO"))[0] for node in cluster.nodes]
    return {info.partition("cluster_state:")[2][:2] for info in infos}


def until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def took_for(value: str, cache) -> float:
    """Return the seconds that a read takes which gives a value."""
    began = time.monotonic()
    assert cache.get(value.lower()) == value
    return time.monotonic() - began


def test_a_cluster_that_is_down_delays_nobody_and_is_left_alone(cluster, plain):
    cache = cl.CacheAside(plain, str.upper, ttl=60)
    cache.warm(KEYS)
    for node in cluster.nodes:
        node.ask(("CLUSTER", "DELSLOTS", 0))  # no key's slot, but all must be covered
    try:
        until(lambda: state(cluster) == {"fa"})
        assert [took_for("KEY-1", cache) < 0.25 for _ in range(9)].count(True) >= 7
        assert cache.stats.breaker == "open" and {"ClusterDownError"} == {
            *cache.stats.errors_by_kind
        }
        began = time.monotonic()
        with pytest.raises(redis.exceptions.ClusterDownError):
            plain.get("cache:key-1")
        assert time.monotonic() - began > 0.25  # as redis-py waits
        again = cl.CacheAside(plain, str.upper, ttl=60)
        assert again.get("key-1") == "KEY-1" and again.stats.breaker == "open"  # they share it
    finally:
        cluster.nodes[0].ask(("CLUSTER", "ADDSLOTS", 0))
        until(lambda: state(cluster) == {"ok"})
    hits = cache.stats.hits
    until(lambda: cache.get("key-1") == "KEY-1" and cache.stats.hits > hits)


METHODS = {"sync": ["threads", "pipeline", "bulk"], "async": ["gather", "pipeline", "bulk"]}


@pytest.mark.parametrize(
    ("kind", "method"), [(kind, method) for kind, names in METHODS.items() for method in names]
)
def test_users_are_seeded_on_the_nodes_that_hold_them(cluster, plain, kind, method):
    def seed() -> cl.SeedReport:
        if kind == "sync":
            return cl.seed(plain, 300, method=method, seed=1)
        return asyncio.run(awaited())

    async def awaited() -> cl.SeedReport:
        async with redis.asyncio.RedisCluster("127.0.0.1", **settings(cluster)) as client:
            return await cl.seed_async(client, 300, method=method, seed=1)

    cluster.nodes[1].link.cut_after(200)  # of replies: what was lost is sent again
    report = seed()
    assert report.written == 300 and report.round_trips == (
        300 if method in METHODS[kind][0] else 3
    )
    users = dict(cl.generate_users(300, seed=1))
    assert all(plain.get(id) == value.encode() for id, value in users.items())
    sizes = [node.ask(("DBSIZE",))[0] for node in cluster.nodes]
    assert sum(sizes) == 300 and min(sizes) > 50
    cluster.nodes[1].link.cut()
    try:
        with pytest.raises(cl.SeedError) as failed:
            seed()
        assert failed.value.report.written < 300
    finally:
        cluster.nodes[1].link.heal()


def test_a_trace_is_replayed_and_counted_by_the_cache_and_by_all_nodes_alike(cluster, plain):
    df = replay.run(cluster.url, workload.zipf(2000, 100, 0.9), windows=4)
    whole = df[df["prefix"] == "all"]
    assert (whole["hits"] == whole["server_hits"]).all()
    assert (whole["requests"] - whole["hits"] == whole["server_misses"]).all()
    assert whole["keys"].iloc[-1] == 100 and whole["hits"].iloc[-1] > 400
    assert all(0 < node.ask(("DBSIZE",))[0] < 100 for node in cluster.nodes)


@pytest.mark.parametrize("call", ["get", "get_many"])
def test_a_time_limit_that_redis_py_takes_for_a_failure_reaches_its_owner(cluster, plain, call):
    cache = cl.CacheAside(plain, str.upper, ttl=60)
    cache.warm(KEYS)
    asked = {"get": KEYS[0], "get_many": KEYS}[call]
    for node in cluster.nodes:
        node.link.freeze()

    def is_quick() -> bool:
        began = time.monotonic()
        with limited(0.05, TimeoutError), pytest.raises(TimeoutError, match="time is up"):
            getattr(cache, call)(asked)
        return time.monotonic() - began < 0.3  # not after another try

    try:
        assert at_best(is_quick)
    finally:
        for node in cluster.nodes:
            node.link.thaw()
    assert cache.stats.errors == 0 and cache.get_many(KEYS) == {key: key.upper() for key in KEYS}
