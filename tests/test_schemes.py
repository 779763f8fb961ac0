"""Clients of a cluster and behind Sentinels, by their URLs: shared, in time, led to who serves."""

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import threading
import time

import pytest
import redis
import redis.asyncio
from conftest import PATIENT, at_best
from doors import door
from test_server import eventually

import cachelab as cl
from cachelab.cli import doctor
from cachelab.clients.sentinel import Sentinels

KEYS = [f"user-{n}" for n in range(60)]  # of many slots


@pytest.fixture(scope="module")
def cluster():
    with cl.Cluster() as started:
        yield started


@pytest.fixture(scope="module")
def sentinel():
    with cl.Sentinel() as started:
        yield started


@pytest.fixture(params=["cluster", "sentinel"])
def practice(request):
    """Each of them, every node alive and every key gone."""
    practice = request.getfixturevalue(request.param)
    for node in practice.nodes:
        if node.role == "primary":
            node.ask(("FLUSHALL",))
    return practice


def run(client, main) -> object:
    """Run a coroutine function in an event loop of its own; close what the client opened there."""

    async def whole():
        try:
            return await main()
        finally:
            pool = getattr(client, "connection_pool", None)
            await (client.aclose() if pool is None else pool.disconnect())

    return asyncio.run(whole())


def login(practice) -> str:
    return f":{practice.nodes[0]._password}@"


def place(node) -> str:
    return f"127.0.0.1:{node.port}"


def calls(nodes, command: str) -> int:
    """Return how often nodes have been sent a command."""
    shown = [node.ask(("INFO", "commandstats"))[0] for node in nodes]
    return sum(one[f"cmdstat_{command}"]["calls"] for one in shown if f"cmdstat_{command}" in one)


def test_one_client_of_a_kind_serves_all_with_the_same_arguments(practice):
    client, aclient = cl.connect(practice.url), cl.connect_async(practice.url)
    assert client is cl.connect(practice.url) and aclient is cl.connect_async(practice.url)
    assert client is not cl.connect(practice.url, retries=0)
    is_cluster = isinstance(practice, cl.Cluster)
    assert isinstance(client, redis.RedisCluster if is_cluster else redis.Redis)
    asyncio_kind = redis.asyncio.RedisCluster if is_cluster else redis.asyncio.Redis
    assert isinstance(aclient, asyncio_kind)


@pytest.mark.parametrize("url", ["redis-cluster://127.0.0.1:1", "redis-sentinel://127.0.0.1:1/x"])
def test_a_client_is_made_without_asking_anybody(url):
    client, aclient = cl.connect(url, check=False), cl.connect_async(url)
    for ask in (lambda: client.get("a"), lambda: run(aclient, lambda: aclient.get("a"))):
        with pytest.raises(redis.ConnectionError, match="127.0.0.1:1"):
            ask()
    cache = cl.CacheAside(client, str.upper, ttl=60)
    assert cache.get("ada") == "ADA" and cache.stats.errors > 0


def test_commands_reach_keys_of_all_slots_alone_and_in_pipelines(practice):
    client, aclient = cl.connect(practice.url), cl.connect_async(practice.url)
    assert all(client.set(key, key.upper()) for key in KEYS)
    pipeline = client.pipeline(transaction=False)
    for key in KEYS:
        pipeline.get(key)
    assert pipeline.execute() == [key.upper() for key in KEYS]  # as text

    async def main():
        pipeline = aclient.pipeline(transaction=False)
        for key in KEYS:
            pipeline.incr(f"n:{key}")
        return await pipeline.execute(), [await aclient.get(key) for key in KEYS]

    assert run(aclient, main) == ([1] * 60, [key.upper() for key in KEYS])
    assert client.eval("return redis.call('GET', KEYS[1])", 1, KEYS[0]) == KEYS[0].upper()
    if isinstance(practice, cl.Cluster):
        assert {client.get_node_from_key(key).port for key in KEYS} == {
            node.port for node in practice.nodes if node.role == "primary"
        }


def test_three_hundred_reads_at_once_are_all_served_by_few_connections(practice):
    aclient = cl.connect_async(f"{practice.url}?max_connections=5")

    async def main():
        await aclient.set("ada", "36")
        return await asyncio.gather(*(aclient.get("ada") for _ in range(300)))

    assert run(aclient, main) == ["36"] * 300


def test_redis_pys_own_asyncio_client_of_a_cluster_does_not_serve_them_all(cluster):
    url = f"redis://{login(cluster)}{place(cluster.nodes[0])}"

    async def control():
        async with redis.asyncio.RedisCluster.from_url(url, max_connections=5) as client:
            reads = (client.get("ada") for _ in range(300))
            return await asyncio.gather(*reads, return_exceptions=True)

    assert any(
        isinstance(one, redis.exceptions.MaxConnectionsError) for one in asyncio.run(control())
    )


def test_an_asyncio_client_works_in_one_event_loop_after_another(practice):
    aclient = cl.connect_async(practice.url)
    assert [run(aclient, lambda: aclient.incr("n")) for _ in range(3)] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_redis_pys_own_asyncio_client_of_a_cluster_does_not(cluster):
    url = f"redis://{login(cluster)}{place(cluster.nodes[0])}"
    client = redis.asyncio.RedisCluster.from_url(url)
    asyncio.run(client.set("ada", "36"))
    with pytest.raises(RuntimeError, match="Event loop is closed|different loop"):
        for _ in range(3):
            asyncio.run(client.get("ada"))
    del client
    gc.collect()


def test_a_crowd_at_the_start_asks_once_who_holds_what(cluster, together):
    before = calls(cluster.nodes, "command"), calls(cluster.nodes, "cluster|slots")
    client = cl.connect(cluster.url, check=False, timeout=5, retries=0)
    assert together(30, client.get, "nobody") == [None] * 30
    aclient = cl.connect_async(cluster.url, timeout=5, retries=0)

    async def main():
        return await asyncio.gather(*(aclient.get("nobody") for _ in range(30)))

    assert run(aclient, main) == [None] * 30
    after = calls(cluster.nodes, "command"), calls(cluster.nodes, "cluster|slots")
    assert [late - early for early, late in zip(before, after, strict=True)] == [2, 2]


def test_a_thread_that_was_interrupted_in_its_turn_keeps_others_out_only_for_a_while(cluster):
    client = cl.connect(cluster.url, check=False, timeout=5)
    turn, another = client.nodes_manager._turn, threading.get_ident() + 1
    turn._taken = another, time.monotonic() + 0.2
    assert client.get("nobody") is None
    client = cl.connect(cluster.url, check=False, retries=2)
    client.nodes_manager._turn._taken = another, float("inf")  # control: a lock that nobody frees
    with pytest.raises(redis.ConnectionError, match="still asking"):
        client.get("nobody")


def test_a_forked_child_uses_the_client_of_its_parent(practice):
    client = cl.connect(practice.url)
    client.set("ada", "36")
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os._exit(0 if client.get("ada") == "36" else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0 and client.get("ada") == "36"


def slots_of(client, key):
    """Return the slot of a key, the node that holds it, and another."""
    slot, home = client.keyslot(key), client.get_node_from_key(key).port
    other = next(node.port for node in client.get_primaries() if node.port != home)
    return slot, home, other


def test_a_key_whose_slot_is_moving_is_followed(cluster):
    client, aclient = (
        connect(cluster.url, timeout=PATIENT) for connect in (cl.connect, cl.connect_async)
    )
    nodes = {node.port: node for node in cluster.nodes}
    client.set("ada", "36")
    slot, home, other = slots_of(client, "ada")
    names = {port: nodes[port].ask(("CLUSTER", "MYID"))[0] for port in (home, other)}
    run(aclient, lambda: aclient.get("ada"))  # it knows where the key is
    nodes[other].ask(("CLUSTER", "SETSLOT", slot, "IMPORTING", names[home]))
    nodes[home].ask(("CLUSTER", "SETSLOT", slot, "MIGRATING", names[other]))
    move = ("MIGRATE", "127.0.0.1", other, "ada", 0, 1000, "AUTH", nodes[home]._password)
    nodes[home].ask(move)
    with pytest.raises(redis.exceptions.AskError):  # control: who is not sent on
        nodes[home].ask(("GET", "ada"))
    assert client.get("ada") == "36" == run(aclient, lambda: aclient.get("ada"))
    assert client.pipeline().get("ada").execute() == ["36"]
    assert run(aclient, lambda: aclient.pipeline().get("ada").execute()) == ["36"]
    for port in (other, home):
        nodes[port].ask(("CLUSTER", "SETSLOT", slot, "NODE", names[other]))
    with pytest.raises(redis.exceptions.MovedError):
        nodes[home].ask(("GET", "ada"))
    assert client.get("ada") == "36" == run(aclient, lambda: aclient.get("ada"))
    assert client.get_node_from_key("ada").port == other


def test_replicas_are_read_where_the_url_asks_for_it(practice):
    url = f"{practice.url}?replica=yes"
    usual, client, aclient = cl.connect(practice.url), cl.connect(url), cl.connect_async(url)
    usual.set("bob", "36")
    replicas = [node for node in practice.nodes if node.role == "replica"]
    for node in replicas:
        node.ask(("CONFIG", "RESETSTAT"))
    assert usual.get("bob") == "36" and calls(replicas, "get") == 0
    assert eventually(lambda: client.get("bob") == "36")  # what a replica says may be old
    seen = calls(replicas, "get")
    assert seen and run(aclient, lambda: aclient.get("bob")) == "36"
    assert calls(replicas, "get") > seen
    if isinstance(practice, cl.Cluster):
        seen = calls(replicas, "get")
        assert client.pipeline().get("bob").execute() == ["36"]
        assert run(aclient, lambda: aclient.pipeline().get("bob").execute()) == ["36"]
        assert calls(replicas, "get") == seen + 2


def test_a_cache_needs_the_primary(sentinel):
    for connect, kind in ((cl.connect, cl.CacheAside), (cl.connect_async, cl.AsyncCacheAside)):
        with pytest.raises(ValueError, match="replica=yes"):
            kind(connect(f"{sentinel.url}?replica=yes"), str.upper, ttl=60)


def test_a_sentinel_that_lags_is_not_believed(sentinel, monkeypatch):
    replica = next(node.port for node in sentinel.nodes if node.role == "replica")
    told, primary = [], Sentinels._primary

    def lags(self, known):
        told.append(self)
        return [("127.0.0.1", replica)] if len(told) == 1 else primary(self, known)

    for flavour in ("sync", "async"):
        told.clear()
        monkeypatch.setattr(Sentinels, "_primary", lags)
        if flavour == "sync":
            client = cl.connect(sentinel.url, check=False, timeout=1)
            assert client.set("ada", "36")
        else:
            aclient = cl.connect_async(sentinel.url, timeout=1)
            assert run(aclient, lambda c=aclient: c.set("ada", "36"))
        assert len(told) == 2
    monkeypatch.setattr("cachelab.clients.sentinel._Found._check_role", lambda *_: None)
    told.clear()
    client = cl.connect(sentinel.url, check=False, timeout=1, retries=0)
    with pytest.raises(redis.ConnectionError, match="no primary any more: .*read only"):
        client.set("ada", "36")  # control: only the write tells


def test_an_old_primary_that_is_back_is_not_written_to_by_who_was_idle(monkeypatch):
    with cl.Sentinel(replicas=1, sentinels=1) as practice:
        old, new, watch = practice.nodes
        place = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        client, credulous = cl.connect(practice.url), cl.connect(practice.url, timeout=0.3)
        aclient = cl.connect_async(practice.url)

        async def main():
            assert client.set("ada", "1") and credulous.set("ada", "1")
            assert await aclient.set("ada", "1")
            old.freeze()
            try:
                assert eventually(lambda: watch.ask(place)[0][1] == str(new.port))
                assert eventually(lambda: new.role == "primary")
            finally:
                old.thaw()
            with monkeypatch.context() as patch:
                patch.setattr("cachelab.clients.sentinel.IDLE", float("inf"))  # the control
                assert credulous.set("lost", "1") and old.ask(("GET", "lost")) == ["1"]
            assert client.set("ada", "2") and await aclient.set("bob", "2")
            assert new.ask(("MGET", "ada", "bob", "lost")) == [["2", "2", None]]

        run(aclient, main)


def test_a_crowd_of_new_connections_asks_a_sentinel_once(sentinel, monkeypatch):
    primary = next(node for node in sentinel.nodes if node.role == "primary")

    def accepted(nodes) -> int:
        told = [node.ask(("INFO", "stats"))[0]["total_connections_received"] for node in nodes]
        return sum(told)

    def opened(timeout) -> int:
        aclient = cl.connect_async(sentinel.url, timeout=timeout)
        before = accepted(sentinel.nodes[3:])

        async def main():
            await asyncio.gather(*(aclient.get("ada") for _ in range(40)))

        at_primary = accepted([primary])
        run(aclient, main)
        assert accepted([primary]) - at_primary > 20
        return accepted(sentinel.nodes[3:]) - before

    assert opened(5) <= 3 + 2  # and the questions of this test
    alone = lambda self: self._place_async(time.monotonic() + 1)  # noqa: E731
    monkeypatch.setattr(Sentinels, "place_async", alone)  # the control
    assert opened(5.1) > 20


WRONG = {
    "one server's URL to a cluster": ("redis://{cluster}", "node of a cluster.*redis-cluster://"),
    "one server's URL to a Sentinel": ("redis://{sentinel}", "a Sentinel.*redis-sentinel://host"),
    "a cluster's URL to one server": ("redis-cluster://{server}", "single server.*redis://"),
    "a cluster's URL to a Sentinel": ("redis-cluster://{sentinel}", "it is a Sentinel"),
    "Sentinels' URL to one server": ("redis-sentinel://{server}/mymaster", "single server, not"),
    "Sentinels' URL to a cluster": ("redis-sentinel://{cluster}/mymaster", "node of a cluster"),
    "an unknown service": ("redis-sentinel://{sentinel}/other", "service other.*know: mymaster"),
    "a wrong password of a cluster": ("redis-cluster://:x@{cluster[1]}", "refuses the .*password"),
    "a wrong password of Sentinels": (
        "redis-sentinel://{sentinel}/mymaster?sentinel_password=x",
        "refuses the .*password",
    ),
    "nobody there": ("redis-cluster://:x@127.0.0.1:1,127.0.0.1:2", "127.0.0.1:1,127.0.0.1:2 ref"),
    "nobody there, for two reasons": (
        "redis-sentinel://:x@127.0.0.1:1,no-such.invalid:2/mymaster",
        "127.0.0.1:1 refuses.*no-such.invalid:2 cannot be found",
    ),
    "TLS where there is none": ("rediss-cluster://{cluster}", "TLS.* redis-cluster://"),
}


class Named:
    """A place in a URL: with the password, or without it by [1]."""

    def __init__(self, node):
        self._parts = [f":{node._password}@{place(node)}", place(node)]

    def __str__(self):
        return self._parts[0]

    def __getitem__(self, at):
        return self._parts[at]


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence_with_the_way_out(case, cluster, sentinel, server, caplog):
    url, says = WRONG[case]
    nodes = {"cluster": cluster.nodes[0], "sentinel": sentinel.nodes[-1], "server": server}
    url = url.format_map({name: Named(node) for name, node in nodes.items()})
    said = []

    def is_quick() -> bool:
        began = time.monotonic()
        with pytest.raises(cl.RedisUnavailable, match=says) as caught:
            cl.connect(url)
        said.append(str(caught.value))
        return time.monotonic() - began < 0.6

    assert at_best(is_quick)
    said = said[-1]
    assert said.count("\n") == 1 and "doctor" in said
    assert not any(node._password in said for node in nodes.values())
    if "URL" in case:  # the asyncio client says it when it is used
        aclient = cl.connect_async(url)
        with pytest.raises(redis.ConnectionError, match=says):
            run(aclient, lambda: aclient.get("ada"))
        cache = cl.CacheAside(cl.connect(url, check=False), str.upper, ttl=60, prefix="wrong:")
        assert [cache.get(id) for id in ("ada", "bob")] == ["ADA", "BOB"]
        [told] = caplog.messages
        assert "goes on without Redis" in told and told.endswith("Correct the URL.")


def test_frozen_nodes_are_told_in_time(practice):
    def told(kind, says, call) -> float:
        began = time.monotonic()
        with pytest.raises(kind, match=says):
            call(practice.url)
        return time.monotonic() - began

    for node in practice.nodes:
        node.freeze()
    try:
        assert at_best(
            lambda: told(cl.RedisUnavailable, "did not answer in time", cl.connect) < 0.6
        )
        aclient, last = cl.connect_async(practice.url), place(practice.nodes[-1])
        get = lambda _: run(aclient, lambda: aclient.get("ada"))  # noqa: E731
        assert at_best(
            lambda: told(redis.ConnectionError, f"{last}.*: (Timeout|no answer)", get) < 0.6
        )
    finally:
        for node in practice.nodes:
            node.thaw()


def test_the_environment_may_name_either(practice, monkeypatch):
    monkeypatch.setenv("REDIS_URL", practice.url)
    assert cl.server_url() == practice.url and cl.connect().set("ada", "36")
    monkeypatch.setenv("REDIS_URL", practice.url.replace("127.0.0.1:", "127.0.0.1:1"))
    with pytest.raises((cl.RedisUnavailable, ValueError), match="REDIS_URL"):
        cl.connect()


def test_the_rediss_twins_speak_tls(cluster, sentinel, tmp_path):
    first, watch = f"redis://{login(cluster)}{place(cluster.nodes[0])}", sentinel.nodes[-1]
    with door(first, "rediss", tmp_path) as url:
        secure = url.replace("rediss://", "rediss-cluster://").replace("/0?", "?")
        client = cl.connect(secure, timeout=5)
        assert len(client.get_nodes()) == 6
        plain = url.replace("rediss://", "redis-cluster://").partition("/0?")[0]
        with pytest.raises(cl.RedisUnavailable):  # control: the port speaks nothing else
            cl.connect(plain)
    with door(f"redis://{login(sentinel)}{place(watch)}", "rediss", tmp_path) as url:
        behind = url.replace("rediss://", "rediss-sentinel://").replace("/0?", "/mymaster?")
        with pytest.raises(cl.RedisUnavailable, match="leads to 127.0.0.1:.*TLS"):
            cl.connect(behind, timeout=1.5)  # the Sentinel speaks TLS here, the primary does not


def test_doctor_knows_what_it_is_connected_to(practice, monkeypatch):
    monkeypatch.setenv("REDIS_URL", practice.url)
    rows = {part: (state, detail) for part, state, detail, _ in doctor._server()}
    state, detail = rows["server"]
    primary = next(node for node in practice.nodes if node.role == "primary")
    is_cluster = isinstance(practice, cl.Cluster)
    shape = "of 3 primaries and 3 replicas" if is_cluster else f"primary at {place(primary)}"
    assert shape in detail and rows["lessons"][0] == "refused"
    assert state == rows["round trip"][0] == "ok"
    assert practice.nodes[0]._password not in str(rows)


def written(client, slowest) -> bool:
    """Write once; note how long that took."""
    began = time.monotonic()
    try:
        return client.set("ada", "1")
    except redis.RedisError:
        return False
    finally:
        slowest.append(time.monotonic() - began)


@pytest.mark.parametrize(("kind", "end"), [(cl.Cluster, "kill"), (cl.Sentinel, "freeze")])
def test_the_new_primary_is_found_after_a_fail_over(kind, end):
    def is_in_time() -> bool:
        with kind() as practice:
            lost, slowest = writing_while_its_primary_ends(practice, end)
        *_, third, _, longest = sorted(slowest)
        return not lost and third < 0.6 and longest < 2  # of both clients one may have been held up

    assert at_best(is_in_time)


def writing_while_its_primary_ends(practice, end) -> tuple[list, list]:
    """Return what the asyncio client could not write at last, and how long each write took."""
    client, aclient = cl.connect(practice.url), cl.connect_async(practice.url)
    primaries = [node for node in practice.nodes if node.role == "primary"]
    lost, slowest, stop = [], [], threading.Event()
    cl.connect(practice.url, timeout=PATIENT).set("ada", "0")
    is_cluster = isinstance(practice, cl.Cluster)
    port = client.get_node_from_key("ada").port if is_cluster else primaries[0].port
    primary = next(node for node in primaries if node.port == port)

    async def write():
        for n in range(10**6):
            if stop.is_set():
                return
            began = time.monotonic()
            try:
                await aclient.set("ada", n)
                lost.clear()
            except redis.RedisError as error:
                lost.append(error)
            slowest.append(time.monotonic() - began)
            await asyncio.sleep(0.01)

    def new():
        return any(n.role == "primary" for n in practice.nodes if n not in primaries)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        writer = pool.submit(run, aclient, write)
        getattr(primary, end)()
        try:
            assert eventually(lambda: new() and written(client, slowest))
            assert eventually(lambda: not lost)
        finally:
            stop.set()
        writer.result()
    return lost, slowest
