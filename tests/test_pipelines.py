"""Pipelines on a cluster: in time, in no circle, and with the replies that commands have alone."""

import asyncio
import concurrent.futures
import threading
import time

import pytest
import redis
import redis.asyncio
from conftest import PATIENT, at_best
from redis._parsers import CommandsParser

import cachelab as cl
from cachelab.clients import cluster as layouts
from cachelab.clients import pipelines
from cachelab.clients.cluster import Cluster
from cachelab.clients.cluster_async import AsyncCluster
from cachelab.clients.deadlines import Pool

KEYS = [f"key-{n}" for n in range(9)]  # of all shards


@pytest.fixture(scope="module")
def cluster():
    with cl.Cluster(replicas=0, node_timeout=30) as cluster:
        yield cluster


@pytest.fixture(params=["sync", "async"])
def execute(request, cluster):
    """A function that sends commands in one pipeline of either kind of client.

    What is to happen before is called when the client knows its nodes and has connections to them.
    """

    def run(*commands, before=None, options="", retries=1, timeout=PATIENT, **how) -> list:
        url = f"{cluster.url}{options}"
        if request.param == "sync":
            client = cl.connect(url, False, retries, timeout)
            if before:
                queued(client, commands).execute()
                before()
            return queued(client, commands).execute(**how)

        async def main():
            client = cl.connect_async(url, retries=retries, timeout=timeout)
            try:
                if before:
                    await queued(client, commands).execute()
                    before()
                return await queued(client, commands).execute(**how)
            finally:
                await client.aclose()

        return asyncio.run(main())

    return run


def queued(client, commands):
    pipeline = client.pipeline(transaction=False)
    for words in commands:
        pipeline.execute_command(*words)
    return pipeline


def as_redis_py_does(monkeypatch) -> None:
    monkeypatch.setattr(Cluster, "pipeline", redis.RedisCluster.pipeline)
    monkeypatch.setattr(AsyncCluster, "pipeline", redis.asyncio.RedisCluster.pipeline)


def test_replies_are_those_that_commands_have_alone(cluster, execute):
    execute(*(("SET", key, key.upper()) for key in KEYS), ("HSET", "hash", "a", "1"))
    reads = [*(("GET", key) for key in KEYS), ("HGETALL", "hash")]
    script = ("EVAL", "return {KEYS[2], ARGV[1]}", 2, "{k}a", "{k}b", "c")
    assert execute(*reads, script) == [*map(str.upper, KEYS), {"a": "1"}, ["{k}b", "c"]]
    raw = execute(*reads, options="?decode_responses=no")
    assert raw == [*(key.upper().encode() for key in KEYS), {b"a": b"1"}]


def test_an_error_is_the_reply_of_its_command_and_names_it_when_it_is_raised(execute):
    commands = [("SET", "key-0", "1"), ("LPUSH", "key-0", "a"), ("GET", "key-0")]
    _, error, value = execute(*commands, raise_on_error=False)
    assert value == "1" and "WRONGTYPE" in str(error)
    with pytest.raises(redis.ResponseError, match="Command # 2 .LPUSH key-0 a. of pipeline"):
        execute(*commands)


def test_a_command_without_a_key_goes_to_the_node_that_is_named(cluster):
    client = cl.connect(cluster.url)
    client.set("key-0", "1")
    node = client.get_node_from_key("key-0")
    pipeline = client.pipeline()
    pipeline.execute_command("KEYS", "key-0", target_nodes=node)
    pipeline.get("key-0")
    assert pipeline.execute() == [["key-0"], "1"]
    pipeline.execute_command("DBSIZE", target_nodes=client.PRIMARIES)
    with pytest.raises(redis.exceptions.RedisClusterException, match="DBSIZE .* 3 nodes"):
        pipeline.execute()


def test_threads_do_not_wait_for_each_others_connections_in_a_circle(cluster, monkeypatch):
    nodes = {cl.connect(cluster.url).get_node_from_key(key).name: key for key in KEYS}
    first, last, *_ = nodes.values()
    entered, get = {}, Pool.get_connection

    def get_and_wait(pool, *args, **options):
        connection = get(pool, *args, **options)
        me = threading.current_thread().name
        if me in entered and not entered[me].is_set():
            entered[me].set()
            for other in entered.values():
                other.wait(0.1)
        return connection

    def both(url) -> list:
        client = cl.connect(url, retries=0, timeout=PATIENT)
        queued(client, [("GET", key) for key in KEYS]).execute()  # all connections are there
        monkeypatch.setattr(Pool, "get_connection", get_and_wait)
        entered.update({"crossed_0": threading.Event(), "crossed_1": threading.Event()})
        orders = [[("GET", first), ("GET", last)], [("GET", last), ("GET", first)]]
        with concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="crossed") as pool:
            waits = [pool.submit(queued(client, order).execute) for order in orders]
        monkeypatch.setattr(Pool, "get_connection", get)
        return [type(wait.exception()) for wait in waits]

    assert both(f"{cluster.url}?max_connections=1&timeout=5") == [type(None)] * 2
    as_redis_py_does(monkeypatch)  # the control
    assert redis.ConnectionError in both(f"{cluster.url}?max_connections=1&timeout=0.4")


@pytest.mark.parametrize("frozen", [2, 3])
def test_a_pipeline_ends_in_the_time_of_one_call(cluster, execute, frozen, monkeypatch):
    reads = [("GET", key) for key in KEYS]
    began = []

    def freeze() -> None:
        for node in cluster.nodes[:frozen]:
            node.freeze()
        began.append(time.monotonic())

    def seconds(count: int) -> float:
        try:
            with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
                execute(*reads[:count], before=freeze, timeout=0.2)
            return time.monotonic() - began[-1]
        finally:
            for node in cluster.nodes[:frozen]:
                node.thaw()

    assert at_best(lambda: seconds(9) < 0.6)
    if frozen == 3:
        as_redis_py_does(monkeypatch)  # the control
        assert seconds(1) > 0.6


@pytest.mark.parametrize("retries", [0, 1])
def test_what_was_not_answered_is_sent_again_as_often_as_a_call_may(
    cluster, execute, retries, monkeypatch
):
    def each(do) -> None:
        for node in cluster.nodes:
            getattr(node, do)()

    def thawing(refresh):
        def thaw_first(way, failed=None):
            each("thaw")
            return refresh(way, failed)

        return thaw_first

    for way in (pipelines.Blocking, pipelines.Awaiting):
        monkeypatch.setattr(way, "refresh", thawing(way.refresh))
    execute(("SET", "key-0", "1"))
    try:
        again = execute(
            *(("GET", "key-0"), ("INCR", "count")),
            before=lambda: each("freeze"),
            retries=retries,
            timeout=1.2,
            raise_on_error=False,
        )
    finally:
        each("thaw")
    if retries:
        assert again[0] == "1"
    else:
        assert {type(reply) for reply in again} == {redis.TimeoutError}


TRY_AGAIN = """
if redis.call('INCR', KEYS[1]) < 6 then return redis.error_reply('TRYAGAIN in a moment') end
return 'there'
"""


def test_a_slot_that_is_moving_gets_its_time(execute, monkeypatch):
    execute(("DEL", "count"))
    began = time.monotonic()
    assert execute(("EVAL", TRY_AGAIN, 1, "count")) == ["there"]
    assert time.monotonic() - began > 5 * pipelines.PAUSE
    execute(("DEL", "count"))
    for way in (pipelines._Piped, pipelines._AsyncPiped):  # control: as a cache goes
        monkeypatch.setattr(way, "tries", property(lambda _: 4, lambda *_: None), raising=False)
    with pytest.raises(redis.exceptions.TryAgainError):
        execute(("EVAL", TRY_AGAIN, 1, "count"))


def test_hosts_are_text_whatever_a_client_decodes(cluster, execute, monkeypatch):
    execute(("SET", "key-0", "1"))
    assert execute(("GET", "key-0"), options="?decode_responses=no&client_name=a") == [b"1"]
    monkeypatch.setattr(layouts, "str_if_bytes", lambda text: text)  # the control
    with pytest.raises((TypeError, redis.RedisError)):
        execute(("GET", "key-0"), options="?decode_responses=no&client_name=b")


def test_which_arguments_are_keys_is_asked_of_whichever_node_answers(cluster, monkeypatch):
    def fresh(name: str, timeout=1.5):
        """A client that knows its nodes alone, and a key that its default node does not hold."""
        client = cl.connect(f"{cluster.url}?client_name={name}", timeout=timeout)
        default = client.get_default_node()
        key = next(key for key in KEYS if client.get_node_from_key(key) != default)
        return client, key, next(node for node in cluster.nodes if node.port == default.port)

    async def awaited(name: str):
        client = cl.connect_async(f"{cluster.url}?client_name={name}", timeout=1.5)
        _, key, node = fresh(name)
        await client.initialize()
        client.nodes_manager.default_node = client.get_node("127.0.0.1", node.port)
        node.freeze()
        try:
            return await client.set(key, "1")
        finally:
            node.thaw()
            await client.aclose()

    def called(name: str, timeout=1.5):
        client, key, node = fresh(name, timeout)
        node.freeze()
        try:
            return client.set(key, "1")
        finally:
            node.thaw()

    assert called("d") and asyncio.run(awaited("e"))
    monkeypatch.setattr(layouts._Commands, "initialize", CommandsParser.initialize)  # the control
    with pytest.raises(redis.TimeoutError):
        called("f", timeout=0.2)


def test_what_a_node_is_asked_for_and_what_it_holds_go_over_one_connection(cluster):
    client = cl.connect(f"{cluster.url}?max_connections=1", timeout=PATIENT)
    for key in KEYS:
        client.set(key, key)
    layout = client.nodes_manager
    source = client.get_node_from_key("key-0")
    target = next(node for node in client.get_primaries() if node != source)
    nodes = {node.port: node for node in cluster.nodes}
    give, take = nodes[source.port], nodes[target.port]
    slot, held = client.keyslot("key-0"), next(k for k in KEYS if holder(client, k) == target.port)
    names = {node: node.ask(("CLUSTER", "MYID"))[0] for node in cluster.nodes}
    take.ask(("CLUSTER", "SETSLOT", slot, "IMPORTING", names[give]))
    give.ask(("CLUSTER", "SETSLOT", slot, "MIGRATING", names[take]))
    try:
        wrong = layout.slots_cache | {client.keyslot(held): layout.slots_cache[slot]}
        layout.slots_cache = wrong  # so that one is asked for there, and the other has moved there
        client.delete("key-0")
        began = time.monotonic()
        commands = [("SET", "key-0", "1"), ("GET", held)]
        assert queued(client, commands).execute() == [True, held]
        assert time.monotonic() - began < PATIENT / 2  # for another connection it waits longer
    finally:
        for node in (take, give):
            node.ask(("CLUSTER", "SETSLOT", slot, "NODE", names[take]))


def holder(client, key: str) -> int:
    return client.get_node_from_key(key).port
