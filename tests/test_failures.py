"""Only what Redis or the network did is their failure: the rest reaches its owner."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import threading
import time

import pytest
import redis
from doors import dead_places, door, listener

import cachelab as cl
from cachelab.clients import drop_connections, failures, foreign, is_ours
from cachelab.clients.deadlines_async import PoolPerLoop


class SoftTimeLimitExceeded(Exception):
    """As of a task framework."""


class Stop(BaseException):
    """As KeyboardInterrupt."""


LIMITS = (TimeoutError, ConnectionResetError, SoftTimeLimitExceeded, ValueError, Stop)


@pytest.fixture(scope="module", params=["redis", "rediss", "unix"])
def url(request, server, tmp_path_factory):
    with door(server.url, request.param, tmp_path_factory.mktemp("door")) as url:
        yield url


@contextlib.contextmanager
def limited(seconds: float, kind: type[BaseException]):
    """Have a signal handler raise an exception once."""

    def handler(*_):
        raise kind("time is up")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def frozen(server):
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@pytest.mark.parametrize("kind", LIMITS)
def test_a_time_limit_that_fires_while_redis_is_waited_for_reaches_its_owner(server, url, kind):
    client = cl.connect(url, timeout=5)
    with frozen(server), limited(0.05, kind), pytest.raises(kind, match="time is up") as caught:
        client.get("a")
    assert type(caught.value) is kind and foreign(caught.value) is caught.value
    assert client.get("a") is None


@pytest.mark.parametrize("kind", LIMITS)
def test_a_time_limit_that_fires_while_a_name_is_looked_up_reaches_its_owner(monkeypatch, kind):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answered.wait())
    own = f"redis://{kind.__name__.lower()}.example"  # nobody else is waiting for its address
    client = cl.connect(own, check=False, timeout=5)
    with limited(0.05, kind), pytest.raises(kind, match="time is up"):
        client.get("a")
    answered.set()


@pytest.mark.parametrize("kind", LIMITS)
def test_a_time_limit_that_fires_while_a_connection_is_made_reaches_its_owner(monkeypatch, kind):
    with dead_places(2) as places:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: places)
        client = cl.connect("redis://cache.example", check=False, timeout=5)
        with limited(0.05, kind), pytest.raises(kind, match="time is up"):
            client.get("a")


def test_a_plain_client_takes_a_time_limit_for_its_own(server):
    plain = redis.Redis.from_url(server.url, retry=None)
    plain.ping()
    with frozen(server), limited(0.05, TimeoutError), pytest.raises(redis.TimeoutError) as caught:
        plain.get("a")
    assert str(foreign(caught.value)) == "time is up"
    plain.close()


def test_what_redis_or_the_network_did_is_not_foreign(server):
    def failure(call) -> BaseException:
        with pytest.raises((redis.RedisError, OSError)) as caught:
            call()
        return caught.value

    client = cl.connect(server.url)
    client.rpush("list", "1")
    assert foreign(failure(lambda: client.get("list"))) is None
    with frozen(server):
        assert foreign(failure(lambda: client.get("a"))) is None
    refused = cl.connect("redis://127.0.0.1:1", check=False)
    assert foreign(failure(lambda: refused.get("a"))) is None
    with listener(lambda peer: peer.sendall(b"nonsense\r\n")) as url:
        assert foreign(failure(lambda: cl.connect(url, check=False).get("a"))) is None
    client.delete("list")


def test_what_asyncio_did_to_end_a_call_is_not_foreign(server):
    async def fail(url):
        client = cl.connect_async(url)
        try:
            await client.get("a")
        except redis.RedisError as error:
            return foreign(error)
        finally:
            await client.connection_pool.disconnect()

    with frozen(server):
        assert asyncio.run(fail(server.url)) is None
    assert asyncio.run(fail("redis://127.0.0.1:1")) is None


def test_a_cancellation_is_foreign_and_passes(server):
    async def cancelled():
        client = cl.connect_async(server.url)
        call = asyncio.create_task(client.get("a"))
        await asyncio.sleep(0.02)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError as error:
            return foreign(error) is error
        finally:
            await client.connection_pool.disconnect()

    with frozen(server):
        assert asyncio.run(cancelled())


def test_what_the_caller_was_handling_already_is_not_meant():
    refused = cl.connect("redis://127.0.0.1:1", check=False)
    try:
        raise SoftTimeLimitExceeded
    except SoftTimeLimitExceeded:
        with pytest.raises(redis.ConnectionError) as caught:
            refused.get("a")
    assert any(isinstance(cause, SoftTimeLimitExceeded) for cause in failures.chain(caught.value))
    assert foreign(caught.value) is None


def test_a_reply_without_a_traceback_is_judged_by_its_kind(server):
    pipeline = cl.connect(server.url).pipeline(transaction=False)
    [refused] = pipeline.execute_command("NONSENSE").execute(raise_on_error=False)
    assert foreign(refused) is None
    assert foreign(SoftTimeLimitExceeded()) is not None


class Interrupter:
    """Raises at the nth line that a call runs in redis-py or in cachelab."""

    # redis-py's way to its metrics takes every exception for a missing part.
    NOT_OURS = ("redis.observability.recorder", "redis.observability.providers")

    def __init__(self, nth: int, kind: type[BaseException]):
        self.left, self.kind = nth, kind

    def trace(self, frame, event, _):
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("redis", "cachelab")) or module in self.NOT_OURS:
            return None
        if frame.f_code.co_name in ("release", "put_nowait"):  # the call is over
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                self.at = f"{module}:{frame.f_lineno}"
                raise self.kind("time is up")
        return self.trace


@pytest.fixture
def no_collector():
    """Nothing of earlier tests is tidied up amid the test, whose finaliser would be traced too."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", [TimeoutError, SoftTimeLimitExceeded])
def test_no_line_of_a_call_loses_a_time_limit_or_leaves_a_reply(server, kind):
    client = cl.connect(server.url, timeout=5)
    client.mset({"a": "1", "b": "2"})
    for nth in range(1, 1000):
        interrupter = Interrupter(nth, kind)
        sys.settrace(interrupter.trace)
        try:
            client.get("a")
        except kind as error:
            assert foreign(error) is error
        else:
            assert interrupter.left > 0, f"lost at {interrupter.at}"
            break
        finally:
            sys.settrace(None)
        assert client.get("b") == "2", f"another's reply after {interrupter.at}"
    assert 50 < nth < 999
    client.delete("a", "b")


def test_a_demoted_servers_connections_are_dropped_and_calls_under_way_finish(server, together):
    client = cl.connect(server.url, timeout=5)
    client.delete("list")
    ids = set(together(3, client.client_id))
    waiting = threading.Thread(target=client.blpop, args=("list", 3))
    waiting.start()
    while client.info("clients")["blocked_clients"] == 0:
        time.sleep(0.01)
    drop_connections(client)
    client.rpush("list", "1")
    waiting.join()
    assert client.llen("list") == 0
    assert not ids & {client.client_id() for _ in range(3)}


def test_a_demoted_servers_async_connections_are_dropped(server):
    async def ids():
        client = cl.connect_async(server.url)
        before = [await client.client_id(), await client.client_id()]
        drop_connections(client)
        after = [await client.client_id(), await client.client_id()]
        await client.connection_pool.disconnect()
        return before, after

    before, after = asyncio.run(ids())
    assert before[0] == before[1] and after[0] == after[1] != before[0]


def test_another_clients_connections_serve_one_more_call(server):
    plain = redis.Redis.from_url(server.url)
    before = [plain.client_id(), plain.client_id()]
    drop_connections(plain)
    after = [plain.client_id(), plain.client_id()]
    assert before[0] == before[1] == after[0] != after[1]
    plain.close()


def test_a_client_knows_whether_connect_made_it(server):
    assert is_ours(cl.connect(server.url)) and is_ours(cl.connect_async(server.url))
    assert isinstance(cl.connect_async(server.url).connection_pool, PoolPerLoop)
    assert not is_ours(redis.Redis()) and not is_ours(None)


def test_several_that_say_the_same_are_named_in_one_sentence():
    tried = {place: redis.TimeoutError(f"Timeout reading from {place}") for place in ("a:1", "b:2")}
    away = failures.Away(tried | {"c:3": redis.ConnectionError("gone")})
    assert str(away) == "a:1, b:2: Timeout reading; c:3: gone"


def test_nobody_there_is_one_sentence_of_an_asyncio_client_too():
    client = cl.connect_async("redis-cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(redis.ConnectionError, match="failed") as caught:
        asyncio.run(client.get("ada"))
    assert str(caught.value).count("failed") == 1
