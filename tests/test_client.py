"""connect() and connect_async(): the server, how long a call takes, what an error says."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest
import redis
from doors import listener

import cachelab as cl
from cachelab.clients.deadlines import DEADLINE

SECRET = "s3cr3t-word"
SOON = 4.0  # seconds: ten times what a call may take, also where the machine stands still
LOGIN = f":{SECRET}@"


def silent(peer):
    while peer.recv(1000):
        pass


DRIPPING = threading.Event()
DRIPPING.set()


def dripping(peer):
    peer.recv(1000)
    for byte in b"$100000\r\n" + b"x" * 100_000:
        if not DRIPPING.is_set():
            return
        peer.sendall(bytes([byte]))
        time.sleep(0.02)


@pytest.fixture
def no_environment(monkeypatch):
    for name in ("URL", "HOST", "PORT", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"REDIS_{name}", raising=False)


def test_the_same_arguments_give_the_same_client(server):
    assert cl.connect(server.url) is cl.connect(server.url, retries=1)
    assert cl.connect(server.url) is not cl.connect(server.url, retries=0)
    assert cl.connect_async(server.url) is cl.connect_async(server.url)


def test_a_client_speaks_str(client):
    client.set("a", "é")
    assert client.get("a") == "é"


def test_the_url_comes_from_the_environment(monkeypatch, no_environment):
    monkeypatch.setenv("REDIS_HOST", "cache.example")
    monkeypatch.setenv("REDIS_USERNAME", "me")
    monkeypatch.setenv("REDIS_PASSWORD", "p@ss/word")
    assert cl.server_url() == "redis://me:p%40ss%2Fword@cache.example:6379"
    monkeypatch.setenv("REDIS_PORT", "6380")
    assert cl.server_url().endswith(":6380")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:1")
    assert cl.server_url() == "redis://elsewhere:1"


def test_without_an_environment_an_embedded_server_is_started_once(no_environment):
    assert cl.server_url() == cl.server_url()
    assert cl.connect().ping() is True


def test_a_server_that_was_named_and_is_away_is_an_error_and_no_reason_to_start_another(
    monkeypatch, no_environment
):
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@127.0.0.1:1/0")
    with pytest.raises(
        cl.RedisUnavailable, match=r"redis://127.0.0.1:1/0 refuses connections"
    ) as caught:
        cl.connect()
    assert "unset REDIS_URL" in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"http://:{SECRET}@host:1", "redis://, rediss://, unix://"),
        ("localhost:6379", "must begin with"),
        ("", "must begin with"),
        (f"redis://:{SECRET}@host:99999", "host:99999"),
        (f"redis://:{SECRET}@host:port", "host:port"),
        (f"redis://:{SECRET}@host:0", "1 to 65535"),
        (f"redis://:{SECRET}/{SECRET}@host:1", "%XX"),
        (f"redis://:{SECRET}@host:1/nine", "/nine"),
        (f"redis://:{SECRET}@{'h' * 64}.example:1", "hhh"),
        (f"redis-cluster://:{SECRET}@a:1,:2", "host:port,host:port with"),
        (f"redis-cluster://:{SECRET}@a:1,b:2/0", "no database"),
        (f"redis-cluster://:{SECRET}@a:1,b:0", "1 to 65535"),
        (f"redis-sentinel://:{SECRET}@a:1,b:2", "host:port/service"),
        (f"redis-sentinel://:{SECRET}@a:1,b:2/x/y", "host:port/service"),
        (5, "must be a str"),
    ],
)
def test_a_url_that_names_no_server_is_one_clear_error_without_the_password(url, says):
    for connect in (cl.connect, cl.connect_async):
        with pytest.raises((ValueError, TypeError), match=says) as caught:
            connect(url)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "bad", [{"retries": -1}, {"retries": 1.5}, {"retries": True}, {"timeout": 0}, {"timeout": "1"}]
)
def test_bad_arguments_are_refused(server, bad):
    for connect in (cl.connect, cl.connect_async):
        with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
            connect(server.url, **bad)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"redis://:{SECRET}@no-such-host.invalid:1", "name no-such-host.invalid"),
        (f"unix://:{SECRET}@/no/such/socket", "/no/such/socket"),
    ],
)
def test_an_address_that_nobody_has_is_one_clear_error(url, says):
    with pytest.raises(cl.RedisUnavailable, match=says) as caught:
        cl.connect(url)
    assert SECRET not in str(caught.value)


def test_tls_to_a_plain_port_is_named(server):
    with pytest.raises(cl.RedisUnavailable, match="TLS") as caught:
        cl.connect(server.url.replace("redis://", "rediss://"))
    assert str(server.port) in str(caught.value)


def test_a_wrong_password_is_named_and_not_retried(server):
    wrong = f"redis://:{SECRET}@127.0.0.1:{server.port}"
    own = cl.connect(server.url)
    before = own.info("stats")["total_connections_received"]
    with pytest.raises(cl.RedisUnavailable, match="password") as caught:
        cl.connect(wrong, retries=5, timeout=10)
    assert SECRET not in str(caught.value)
    assert own.info("stats")["total_connections_received"] - before == 1
    own.connection_pool.disconnect()


def elapsed(call) -> float:
    started = time.monotonic()
    with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
        call()
    return time.monotonic() - started


@pytest.mark.parametrize("behave", [silent, dripping])
def test_a_call_ends_within_its_deadline(behave):
    with listener(behave, LOGIN) as url:
        client = cl.connect(url, check=False)
        assert elapsed(lambda: client.get("a")) < SOON

        async def get():
            aclient = cl.connect_async(url)
            try:
                await aclient.get("a")
            finally:
                await aclient.connection_pool.disconnect()

        assert elapsed(lambda: asyncio.run(get())) < SOON
        client.connection_pool.disconnect()


def test_a_plain_client_with_a_short_timeout_waits_on_while_bytes_drip():
    with listener(dripping, LOGIN) as url:
        plain = redis.Redis.from_url(url, socket_timeout=0.2, retry=None)
        caller = threading.Thread(target=elapsed, args=(lambda: plain.get("a"),))
        caller.start()
        caller.join(1)
        assert caller.is_alive()  # five times its timeout
        DRIPPING.clear()
        caller.join()
        DRIPPING.set()
        plain.close()


def test_a_frozen_server_ends_a_call_and_a_limit_ends_it_sooner(monkeypatch):
    with cl.Server() as server:
        client, patient = cl.connect(server.url), cl.connect(server.url, timeout=10)
        server.freeze()
        assert 0.3 < elapsed(lambda: client.get("a")) < SOON
        monkeypatch.setattr(DEADLINE, "until", time.monotonic() + 0.05)
        assert elapsed(lambda: patient.get("a")) < SOON
        monkeypatch.undo()
        for each in (client, patient):
            each.connection_pool.disconnect()


def test_a_large_command_or_reply_may_take_its_time(client):
    pipeline = client.pipeline(transaction=False)
    for n in range(50_000):
        pipeline.set(f"k{n}", n)
    assert len(pipeline.execute()) == 50_000
    client.set("big", "x" * 20_000_000)
    assert len(client.get("big")) == 20_000_000
    assert len(client.mget([f"k{n}" for n in range(50_000)])) == 50_000


def test_pub_sub_waits_as_long_as_it_is_asked_to(client):
    pubsub = client.pubsub()
    pubsub.subscribe("news")
    assert pubsub.get_message(timeout=5)["type"] == "subscribe"
    for text in ("one", "two"):  # later than the client's own timeout
        threading.Timer(0.5, client.publish, ("news", text)).start()
        assert pubsub.get_message(timeout=30)["data"] == text
    assert pubsub.get_message(timeout=0.01) is None
    pubsub.close()


def test_a_thousand_concurrent_reads_queue_where_a_default_pool_raises(server, client):
    client.set("a", "1")
    patient = cl.connect_async(server.url, timeout=10)

    async def reads(reader):
        return await asyncio.gather(*(reader.get("a") for _ in range(1000)), return_exceptions=True)

    async def queued():
        try:
            return await reads(patient)
        finally:
            await patient.connection_pool.disconnect()

    assert asyncio.run(queued()) == ["1"] * 1000

    async def default():
        async with redis.asyncio.Redis.from_url(server.url, decode_responses=True) as plain:
            return await reads(plain)

    assert any(
        isinstance(outcome, redis.exceptions.MaxConnectionsError)
        for outcome in asyncio.run(default())
    )


def test_threads_share_a_client_and_queue_for_its_connections(server, client, together):
    client.set("a", "1")
    patient = cl.connect(
        server.url, timeout=10
    )  # on a busy machine a crowd of threads may need longer than usual
    before = client.info("clients")["connected_clients"]
    assert together(200, patient.get, "a") == ["1"] * 200
    assert 1 < client.info("clients")["connected_clients"] - before <= 50
    patient.connection_pool.disconnect()


def test_an_async_client_works_in_one_event_loop_after_another(server):
    aclient = cl.connect_async(server.url)

    async def main():
        await aclient.set("a", "1")
        value = await aclient.get("a")
        await aclient.connection_pool.disconnect()
        return value

    assert [asyncio.run(main()) for _ in range(3)] == ["1"] * 3


def test_ten_thousand_cancelled_reads_give_no_reply_to_the_wrong_caller(client, run_async, aclient):
    names = [f"k{n}" for n in range(100)]
    client.mset({name: name for name in names})

    async def main():
        for round in range(100):
            tasks = [asyncio.create_task(aclient.get(name)) for name in names]
            await asyncio.sleep(0.0001 * (round % 10))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await asyncio.gather(*(aclient.get(name) for name in names)) == names

    run_async(main())


def test_importing_cachelab_connects_to_nothing_and_loads_no_bench():
    code = (
        "import sys, threading, cachelab;"
        "heavy = {'pandas', 'matplotlib', 'ipywidgets', 'sqlalchemy', 'numpy', 'tqdm', 'difflib'};"
        "heavy &= set(sys.modules); assert not heavy, heavy;"
        "assert threading.active_count() == 1; assert not cachelab.clients.client._clients"
    )
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
