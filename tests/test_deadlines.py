"""Calls end in time by every scheme, and a busy event loop is not a slow Redis."""

import asyncio
import contextlib
import math
import socket
import threading
import time

import hiredis
import pytest
import redis
import redis.asyncio
from conftest import PATIENT, disconnected
from doors import dead_places, door, listener

import cachelab as cl
from cachelab.clients import deadlines, deadlines_async, lookup
from cachelab.clients.deadlines_async import PoolPerLoop
from cachelab.clients.failures import Away
from cachelab.lab.measure.link import Link

SCHEMES = ("redis", "rediss", "unix")
FAILED = (redis.TimeoutError, redis.ConnectionError)
SOON = 4.0  # seconds: less than what nobody bounds takes, also where the machine stands still


@pytest.fixture(scope="module", params=SCHEMES)
def url(request, server, tmp_path_factory):
    with door(server.url, request.param, tmp_path_factory.mktemp("door")) as url:
        yield url


@pytest.fixture(params=SCHEMES)
def far(request, server, tmp_path):
    """A URL of the server at a distance: a reply comes some turns of an event loop later."""
    with Link(server.url, rtt_ms=45) as link, door(link.url, request.param, tmp_path) as url:
        yield url


@pytest.fixture
def frozen(server):
    server.freeze()
    yield
    server.thaw()


@contextlib.contextmanager
def within(seconds: float):
    """Set the deadline of the calls in the block: of the task, or else of the thread."""
    until = time.monotonic() + seconds
    if asyncio._get_running_loop():
        token = deadlines_async.DEADLINE.set(until)
        yield
        deadlines_async.DEADLINE.reset(token)
        return
    former = deadlines.DEADLINE.until
    deadlines.DEADLINE.until = until
    try:
        yield
    finally:
        deadlines.DEADLINE.until = former


def elapsed(call) -> float:
    started = time.monotonic()
    with pytest.raises(FAILED):
        call()
    return time.monotonic() - started


def run(url: str, use, **options):
    """Return what use(client) returns in a loop of its own, and close what it opened."""

    async def main():
        client = cl.connect_async(url, **options)
        try:
            return await use(client)
        finally:
            await disconnected(client)

    return asyncio.run(main())


def test_each_scheme_leads_to_the_server_sync_and_async(url):
    cl.connect(url, timeout=PATIENT).set("a", "1")
    assert run(url, lambda client: client.get("a"), timeout=PATIENT) == "1"


def test_a_frozen_server_ends_a_call_in_time_by_each_scheme(url, frozen):
    client, patient = (cl.connect(url, check=False, timeout=timeout) for timeout in (0.2, 10))
    assert elapsed(lambda: client.get("a")) < SOON
    with within(0.05):
        assert elapsed(lambda: patient.get("a")) < SOON
    for each in (client, patient):
        each.connection_pool.disconnect()


def test_a_frozen_server_ends_an_async_call_in_time_by_each_scheme(url, frozen):
    async def get(client):
        with within(0.05):
            await client.get("a")

    assert elapsed(lambda: run(url, lambda client: client.get("a"))) < SOON
    assert elapsed(lambda: run(url, get, timeout=10)) < SOON


def test_a_plain_asyncio_client_made_of_a_url_forgets_the_class_of_its_connections(url):
    made = redis.asyncio.BlockingConnectionPool.from_url(url, connection_class=FakeConnection)
    ours = cl.connect_async(url).connection_pool
    plain_scheme = url.startswith("redis:")
    assert (made.connection_class is FakeConnection) == plain_scheme
    assert "cachelab" in ours.connection_class.__module__


class FakeConnection(redis.asyncio.Connection):
    pass


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols_work_sync_and_async(server, client, protocol):
    client.set("a", "1")
    url = f"{server.url}?protocol={protocol}"
    with within(9):
        assert cl.connect(url, timeout=PATIENT).get("a") == "1"
        assert run(url, lambda client: client.get("a"), timeout=PATIENT) == "1"


@pytest.fixture
def no_answer(monkeypatch):
    """A name server that does not answer; yields the names that were asked for."""
    asked, answered = [], threading.Event()

    def look_up(host, *_, **__):
        asked.append(host)
        answered.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    answered.set()
    while lookup._under_way:
        time.sleep(0.01)


def test_a_silent_name_server_ends_a_call_in_time(no_answer):
    client = cl.connect("redis://cache.example", check=False)
    assert elapsed(lambda: client.get("a")) < SOON
    assert no_answer == ["cache.example"]  # asked once for both tries


def test_a_silent_name_server_ends_an_async_call_and_its_loop_in_time(no_answer):
    assert elapsed(lambda: run("redis://cache.example", lambda client: client.get("a"))) < SOON


def test_a_plain_client_waits_for_the_name_server(no_answer):
    plain = redis.Redis(host="cache.example", socket_timeout=0.1, retry=None)
    caller = threading.Thread(target=lambda: elapsed(lambda: plain.get("a")), daemon=True)
    caller.start()
    caller.join(0.5)
    assert caller.is_alive()


def test_a_name_is_looked_up_for_who_asks_in_a_forked_child_too(no_answer):
    client = cl.connect("redis://cache.example", check=False)
    elapsed(lambda: client.get("a"))
    assert all(key[0] for key in lookup._under_way)  # by process: a child's thread is its own


@pytest.fixture
def dead(monkeypatch):
    """A name with eight addresses at which nobody answers."""
    with dead_places(8) as places:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        yield


def test_eight_dead_addresses_of_one_name_share_one_deadline(dead):
    once = {"retries": 0, "timeout": 0.7}  # eight times that is more than SOON
    client = cl.connect("redis://cache.example", check=False, **once)
    assert elapsed(lambda: client.get("a")) < SOON
    use = run, "redis://cache.example", lambda client: client.get("a")
    assert elapsed(lambda: use[0](*use[1:], **once)) < SOON
    plain = redis.Redis(host="cache.example", socket_connect_timeout=0.1, retry=None)
    assert elapsed(lambda: plain.get("a")) > 0.7  # one for each


def test_an_address_that_answers_is_found_behind_one_that_does_not(dead, server, client):
    answers = socket.getaddrinfo("cache.example", 1)[:1]
    answers.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
        url = server.url.replace("127.0.0.1", "cache.example")
        assert cl.connect(url, timeout=1.5).ping()
        assert run(url, lambda client: client.ping(), timeout=1.5)


def test_a_short_deadline_leaves_nothing_behind_on_a_connection(server):
    with Link(server.url) as link:
        client = cl.connect(link.url, timeout=5)

        async def clipped_then_plain(client):
            await client.get("a")
            with within(0.6):
                await client.get("a")
            link.rtt_ms = 900
            return await client.get("a")

        assert run(link.url, clipped_then_plain, timeout=5) is None
        link.rtt_ms = 0
        with within(0.6):
            client.get("a")
        link.rtt_ms = 900
        assert client.get("a") is None
        client.connection_pool.disconnect()


async def away(client):
    """Return what a call gets if the event loop is away, longer than its timeout, as it arrives."""
    await client.set("a", "1")
    call = asyncio.create_task(client.get("a"))
    for _ in range(20):
        await asyncio.sleep(0)  # until it is sent, and sooner than its reply can come
    time.sleep(1.5)  # noqa: ASYNC251
    return await call


def test_a_loop_that_was_away_finds_the_reply_that_came_meanwhile(far):
    assert run(far, away, retries=0, timeout=1) == "1"


def test_a_plain_asyncio_client_takes_a_loop_that_was_away_for_a_slow_redis(far):
    async def plain():
        plain = redis.asyncio.Redis.from_url(far, socket_timeout=0.2, retry=None)
        try:
            await away(plain)
        finally:
            await disconnected(plain)

    with pytest.raises(FAILED):
        asyncio.run(plain())


def test_a_loop_that_is_hardly_ever_there_connects_and_reads(far, client):
    client.set("a", "1")

    async def busy(client):
        call = asyncio.create_task(client.get("a"))
        while not call.done():
            await asyncio.sleep(0)
            time.sleep(0.25)  # noqa: ASYNC251
        return await call

    assert run(far, busy, retries=0) == "1"


def test_a_frozen_server_is_noticed_by_a_busy_loop_too(server, frozen):
    async def busy(client):
        call = asyncio.create_task(client.get("a"))
        while not call.done():
            time.sleep(0.06)  # noqa: ASYNC251
            await asyncio.sleep(0)
        await call

    assert elapsed(lambda: run(server.url, busy, retries=0)) < SOON


def test_ten_thousand_concurrent_reads_on_one_loop_raise_nothing(server, client):
    client.set("a", "1")

    async def reads(client):
        return await asyncio.gather(*(client.get("a") for _ in range(10_000)))

    assert set(run(server.url, reads)) == {"1"}


def test_what_a_call_waits_for_a_connection_moves_its_deadline(server):
    async def call(pool) -> list[float]:
        with within(2.5):
            unmoved = deadlines_async.DEADLINE.get()
            connection = await pool.get_connection()
            ends = deadlines_async.DEADLINE.get(), unmoved
            left = [end - time.monotonic() for end in ends]
            await asyncio.sleep(0.5)  # it takes its time, as each does, and is answered
            await pool.release(connection)
            return left

    async def calls(client):
        return await asyncio.gather(*(call(client.connection_pool) for _ in range(7)))

    left, unmoved = zip(*run(f"{server.url}?max_connections=1", calls), strict=True)
    assert min(left) > 1
    assert unmoved[-1] < 0  # control: the last has waited for longer than it had


def test_a_queue_for_connections_that_nobody_answers_ends_with_the_deadline(server):
    one = cl.connect(f"{server.url}?max_connections=1")
    held = one.connection_pool.get_connection()
    with within(0.1):
        assert elapsed(lambda: one.get("a")) < SOON

    async def queue(client):
        held = await client.connection_pool.get_connection()
        try:
            with within(0.1):
                await client.get("a")
        finally:
            await client.connection_pool.release(held)

    assert elapsed(lambda: run(f"{server.url}?max_connections=1", queue)) < SOON
    one.connection_pool.release(held)
    assert one.ping()


def test_a_cancelled_wait_for_a_connection_loses_none(server):
    async def cancelled(client):
        held = await client.connection_pool.get_connection()
        waiting = [asyncio.create_task(client.get("a")) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await client.connection_pool.release(held)
        waiting[1].cancel()  # in the very turn in which it was given the connection
        await asyncio.gather(*waiting, return_exceptions=True)
        return await client.ping()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachelab.clients.deadlines_async.QUEUE", 5.0)
        assert run(f"{server.url}?max_connections=1", cancelled)


def test_a_large_command_or_reply_may_take_its_time_in_async_too(server, client):
    async def large(client):
        pipeline = client.pipeline(transaction=False)
        for n in range(50_000):
            pipeline.set(f"k{n}", n)
        assert len(await pipeline.execute()) == 50_000
        await client.set("big", "x" * 20_000_000)
        assert len(await client.get("big")) == 20_000_000
        return len(await client.mget([f"k{n}" for n in range(50_000)]))

    assert run(server.url, large) == 50_000


def test_an_async_pub_sub_waits_as_long_as_it_is_asked_to(server):
    async def listen(client):
        async with client.pubsub() as pubsub:
            await pubsub.subscribe("news")
            assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
            asyncio.get_running_loop().call_later(0.5, cl.connect(server.url).publish, "news", "1")
            message = await pubsub.get_message(timeout=30)
            assert await pubsub.get_message(timeout=0.01) is None
            return message["data"]

    assert run(server.url, listen) == "1"


def test_a_large_command_that_nobody_reads_ends_in_time():
    stop = threading.Event()

    def deaf(peer):
        peer.recv(1000)
        peer.sendall(b"%1\r\n+proto\r\n:3\r\n")
        stop.wait(9)

    with listener(deaf) as url:
        value = "x" * 20_000_000
        client = cl.connect(url, check=False, retries=0)
        assert elapsed(lambda: client.set("a", value)) < 8  # 4 s are explained by its size
        assert elapsed(lambda: run(url, lambda client: client.set("a", value), retries=0)) < 8
        stop.set()
        client.connection_pool.disconnect()


def test_each_loop_has_a_pool_of_its_own_and_closed_loops_are_dropped(server):
    pool = cl.connect_async(server.url).connection_pool
    assert isinstance(pool, PoolPerLoop)
    for _ in range(3):
        run(server.url, lambda client: client.ping())
    assert len(pool._pools.all()) == 1


def test_who_waits_for_what_another_asks_waits_within_a_deadline_of_its_own():
    limits, answer = [], asyncio.Event()

    async def ask(end: float) -> None:
        limits.append((deadlines_async.DEADLINE.get(), end > time.monotonic() + 5))
        await answer.wait()
        raise Away({"a:1": redis.TimeoutError("gone")})

    async def main() -> list:
        once = deadlines_async.Once(ask, lambda: ["a:1", "b:2"], 40)
        deadlines_async.DEADLINE.set(time.monotonic() + 0.05)
        brief = asyncio.ensure_future(once())
        deadlines_async.DEADLINE.set(math.inf)
        waits = [asyncio.ensure_future(once()) for _ in range(2)]
        with pytest.raises(redis.TimeoutError, match="a:1, b:2"):
            await brief
        answer.set()
        came = await asyncio.gather(*waits, return_exceptions=True)
        answer.clear()
        deadlines_async.DEADLINE.set(time.monotonic())
        with pytest.raises(Away, match="gone"):  # what was heard last
            await once()
        assert len(asyncio.all_tasks()) == 1  # nobody waits, so nobody asks
        return came

    first, second = asyncio.run(main())
    assert str(first) == "a:1: gone" == str(second) and first is not second
    assert limits == [(math.inf, True)] * 2  # once for all, whoever came first


def test_hiredis_is_given_no_number_whose_repr_a_signal_may_interrupt(server, monkeypatch):
    def types_of(client) -> set[type]:
        seen = []
        monkeypatch.setattr(
            hiredis, "pack_command", lambda args: seen.extend(map(type, args)) or pack(args)
        )
        client.set("a", 1.5, ex=5)
        client.incrby("n", 2)
        monkeypatch.undo()
        return {*seen}

    pack = hiredis.pack_command
    ours = cl.connect(f"{server.url}?client_name=numbers")  # SELECT, HELLO: not connected yet
    assert types_of(ours) <= {str, bytes} and ours.get("a") == "1.5"
    with redis.Redis.from_url(server.url, protocol=3) as plain:
        assert {int, float} <= types_of(plain)  # where a handler raises then, the process crashes
