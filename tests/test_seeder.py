"""Users and their seeding: reproducible, streamed, checked, honest about what was written."""

import ast
import asyncio
import inspect
import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import redis

import cachelab as cl
from cachelab import seeder

METHODS = ("one_by_one", "threads", "pipeline", "bulk")
ASYNC_METHODS = ("one_by_one", "gather", "pipeline", "bulk")
BOTH = [("sync", method) for method in METHODS] + [("async", method) for method in ASYNC_METHODS]


@pytest.fixture
def seeding(client, aclient, run_async):
    """Call seed or seed_async, by the name of the flavour."""

    def seeding(flavour, *args, **settings):
        if flavour == "sync":
            return cl.seed(client, *args, **settings)
        return run_async(cl.seed_async(aclient, *args, **settings))

    return seeding


def contents(client):
    keys = client.keys("*")
    return dict(zip(keys, client.mget(keys), strict=True)) if keys else {}


def at_batch(monkeypatch, number, action):
    """Have ``action`` called just before the batch with that number, counted from 0, is written."""
    batches = seeder._batches

    def interrupted(*args):
        for n, batch in enumerate(batches(*args)):
            if n == number:
                action()
            yield batch

    monkeypatch.setattr(seeder, "_batches", interrupted)


# --- generate_users


def test_users_are_named_from_one_and_carry_letters_and_digits():
    users = list(cl.generate_users(3, id_length=12))
    assert [id for id, _ in users] == ["user-1", "user-2", "user-3"]
    assert all(len(value) == 12 and value.isascii() and value.isalnum() for _, value in users)


def test_the_same_seed_gives_the_same_users_whatever_the_count():
    many = list(cl.generate_users(5000, seed=3))
    for count in (0, 1, 511, 512, 513, 4999):
        assert list(cl.generate_users(count, seed=3)) == many[:count]
    assert list(cl.generate_users(10, seed=4)) != many[:10] != list(cl.generate_users(10))


@pytest.mark.parametrize("id_length", [1, 7, 4096, 10_000])
def test_any_length_gives_each_user_a_text_of_its_own(id_length):
    values = [value for _, value in cl.generate_users(20, id_length, seed=1)]
    assert {len(value) for value in values} == {id_length}
    assert id_length == 1 or len(set(values)) == 20


def test_users_are_asked_for_by_numbers_of_any_type():
    wanted = list(cl.generate_users(300, 200, seed=200))
    assert list(cl.generate_users(np.int16(300), np.uint8(200), seed=np.uint8(200))) == wanted


def test_a_length_that_no_value_can_have_is_refused():
    with pytest.raises(ValueError, match="^id_length must be at most 536870912, not "):
        cl.generate_users(1, id_length=10**19)


def test_letters_are_drawn_evenly():
    text = "".join(value for _, value in cl.generate_users(20_000, seed=0))
    counts = [text.count(letter) for letter in set(text)]
    assert len(counts) == 62
    assert max(counts) < 1.15 * min(counts)  # bytes modulo 62 without the correction give 5 : 4


def test_users_are_generated_one_at_a_time():
    assert next(cl.generate_users(10**15))[0] == "user-1"


@pytest.mark.parametrize("settings", [{"count": bad} for bad in (-5, 2.5, "10", None, True)])
def test_bad_counts_are_refused_at_the_call(settings):
    with pytest.raises((TypeError, ValueError), match="count"):
        cl.generate_users(**settings)  # and not only at the first next()


@pytest.mark.parametrize(
    "settings", [{"id_length": 0}, {"id_length": -1}, {"seed": "x"}, {"seed": -1}, {"seed": True}]
)
def test_bad_settings_are_refused_at_the_call(settings):
    with pytest.raises((TypeError, ValueError), match=next(iter(settings))):
        cl.generate_users(10, **settings)


# --- seed and seed_async


@pytest.mark.parametrize("ttl", [None, 60])
@pytest.mark.parametrize(("flavour", "method"), BOTH)
def test_every_method_writes_the_same_users(seeding, client, flavour, method, ttl):
    report = seeding(flavour, 250, method=method, prefix="p:", seed=1, ttl=ttl)
    assert contents(client) == {f"p:{id}": value for id, value in cl.generate_users(250, seed=1)}
    assert (report.count, report.written, report.method) == (250, 250, method)
    assert report.round_trips == (3 if method in ("pipeline", "bulk") else 250)
    assert report.rate == pytest.approx(250 / report.seconds)


@pytest.mark.parametrize(("flavour", "method"), [("sync", method) for method in METHODS])
def test_the_round_trips_reported_are_those_that_the_server_sees(
    server, client, flavour, method, monkeypatch
):
    sent = []
    send = redis.connection.AbstractConnection.send_packed_command
    monkeypatch.setattr(
        redis.connection.AbstractConnection,
        "send_packed_command",
        lambda self, *args, **kwargs: (sent.append(self), send(self, *args, **kwargs))[1],
    )
    with redis.Redis.from_url(server.url, protocol=2, max_connections=1) as client:
        client.ping()  # connect first
        sent.clear()
        assert cl.seed(client, 250, method=method, ttl=60).round_trips == len(sent)


@pytest.mark.parametrize(("flavour", "method"), BOTH)
@pytest.mark.parametrize(
    ("ttl", "low", "high"), [(60, 59_000, 60_000), (1.5, 1, 1500), (60.0, 59_000, 60_000)]
)
def test_a_ttl_holds_for_every_key(seeding, client, flavour, method, ttl, low, high):
    seeding(flavour, 30, batch_size=20, method=method, ttl=ttl)
    left = [client.pttl(f"user-{n}") for n in range(1, 31)]
    assert all(low < milliseconds <= high for milliseconds in left)


@pytest.mark.parametrize(("flavour", "method"), BOTH)
def test_without_ttl_no_key_expires_and_an_older_ttl_is_gone(seeding, client, flavour, method):
    client.set("user-1", "old", ex=60)
    seeding(flavour, 5, method=method)
    assert [client.ttl(f"user-{n}") for n in range(1, 6)] == [-1] * 5


@pytest.mark.parametrize(("flavour", "method"), BOTH)
def test_any_prefix_and_any_client_will_do(server, client, flavour, method):
    prefix = "é ☃\r\n{x}*\0"
    if flavour == "sync":
        with redis.Redis.from_url(server.url, max_connections=2) as plain:
            cl.seed(plain, 120, method=method, prefix=prefix, seed=2, ttl=90)
    else:

        async def main():
            async with redis.asyncio.Redis.from_url(server.url, max_connections=2) as plain:
                await cl.seed_async(plain, 120, method=method, prefix=prefix, seed=2, ttl=90)

        asyncio.run(main())
    assert contents(client) == {prefix + id: value for id, value in cl.generate_users(120, seed=2)}


@pytest.mark.parametrize(("flavour", "method"), BOTH)
def test_no_users_are_nothing_to_do_and_a_batch_may_exceed_the_count(
    seeding, client, flavour, method
):
    assert seeding(flavour, 0, method=method).round_trips == 0
    assert client.dbsize() == 0
    assert seeding(flavour, 7, batch_size=10**6, method=method).written == client.dbsize() == 7


BAD = (
    [{"count": bad} for bad in (-5, 2.5, "10", None, True)]
    + [{"batch_size": bad} for bad in (0, -1, 2.5, "10", None, True)]
    + [{"ttl": bad} for bad in (0, -1, True, "5", float("nan"), float("inf"))]
    + [{"method": bad} for bad in ("magic", None, [], "")]
    + [{"prefix": bad} for bad in (None, 5, b"x", "\ud800", "x" * 510)]
    + [{"seed": bad} for bad in ("x", -1, 2.5, True)]
    + [{"progress": bad} for bad in ("yes", None, 2)]
)


@pytest.mark.parametrize("settings", BAD, ids=lambda settings: ascii(settings)[:40])
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_bad_settings_are_refused_by_name_and_write_nothing(seeding, client, flavour, settings):
    with pytest.raises((TypeError, ValueError), match=next(iter(settings))):
        seeding(flavour, **settings)
    assert client.dbsize() == 0


NUMBERS = {
    "count": (np.int32(7), np.uint8(7)),
    "batch_size": (np.int8(7), np.uint64(7)),
    "ttl": (np.int32(2_592_000), np.uint8(60), Fraction(3, 2), Decimal("2.5"), 1e300),
    "seed": (np.uint8(7), 10**30),
}


@pytest.mark.parametrize(("flavour", "method"), BOTH)
@pytest.mark.parametrize(
    "settings", [{name: value} for name, values in NUMBERS.items() for value in values], ids=ascii
)
def test_a_number_of_any_type_is_taken_as_the_number_it_is(
    seeding, client, flavour, method, settings
):
    report = seeding(flavour, **({"count": 7, "method": method} | settings))
    assert (report.count, report.written) == (7, 7) and type(report.count) is int
    seconds = float(settings.get("ttl", 0))
    left = client.pttl("user-7")
    assert left > 900 * min(seconds, 1e15) if seconds else left == -1


TOO_LARGE = [("count", 10**400), ("count", 10**5000), ("batch_size", 10**30), ("ttl", 10**400)]


@pytest.mark.parametrize(("name", "value"), TOO_LARGE, ids=[name for name, _ in TOO_LARGE])
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_number_too_large_is_refused_by_name_and_writes_nothing(
    seeding, client, flavour, name, value
):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        seeding(flavour, **{name: value})
    assert client.dbsize() == 0


def test_methods_of_the_other_flavour_are_refused(seeding):
    with pytest.raises(ValueError, match="'threads'.*not 'gather'"):
        seeding("sync", method="gather")
    with pytest.raises(ValueError, match="'gather'.*not 'threads'"):
        seeding("async", method="threads")


def test_the_wrong_kind_of_client_is_refused(client, aclient, run_async):
    for other in (aclient, None, "redis://localhost", client.pipeline()):
        with pytest.raises(TypeError, match=r"^client must be what connect\(\) returns"):
            cl.seed(other)
    for other in (client, None, aclient.pipeline()):
        with pytest.raises(TypeError, match=r"^client must be what connect_async\(\) returns"):
            run_async(cl.seed_async(other))
    assert client.dbsize() == 0


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one, which has all its slots: enough to tell one kind of client from another."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        bus = free.getsockname()[1]  # the default, 10,000 above the port, may be no port at all
    with cl.Server(cluster_enabled=True, cluster_port=bus) as server:
        with redis.Redis.from_url(server.url) as plain:
            plain.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in plain.execute_command("CLUSTER", "INFO"):
                pass
        yield server


@pytest.mark.parametrize(("flavour", "method"), BOTH)
def test_a_cluster_is_seeded_by_every_method(cluster, flavour, method):
    kind = redis.RedisCluster if flavour == "sync" else redis.asyncio.RedisCluster

    async def awaited(**settings):
        async with kind.from_url(cluster.url) as client:
            return await cl.seed_async(client, 120, **settings)

    def run(**settings):
        if flavour == "async":
            return asyncio.run(awaited(**settings))
        with kind.from_url(cluster.url) as client:
            return cl.seed(client, 120, **settings)

    with redis.Redis.from_url(cluster.url, decode_responses=True) as plain:
        plain.flushall()
        assert run(method=method, seed=3, ttl=60).written == 120
        assert plain.get("user-120") == dict(cl.generate_users(120, seed=3))["user-120"]
        assert plain.dbsize() == 120 and 0 < plain.ttl("user-120") <= 60


def code(function, substitutions=()):
    """The text of a function without its docstring, after the substitutions and in one spelling."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    if ast.get_docstring(tree.body[0]):
        del tree.body[0].body[0]
    text = ast.unparse(tree)
    for old, new in substitutions:
        text = text.replace(old, new)
    return ast.unparse(ast.parse(text))


TWINS = [(cl.seed, cl.seed_async)]
TWINS += [
    (getattr(seeder, name), getattr(seeder, f"{name}_async"))
    for name in ("_one_by_one", "_pipeline", "_bulk")
]


@pytest.mark.parametrize(("sync", "other"), TWINS)
def test_the_twins_read_alike(sync, other):
    # concurrent seeding, by threads and by tasks, is the one part that cannot be the same text
    table = [
        ("async ", ""),
        ("await ", ""),
        ("_async", ""),
        ("_ASYNC", ""),
        ("redis.asyncio", "redis"),
        ("nowait=True", ""),
        ("'async'", "'sync'"),
    ]
    assert code(other, table) == code(sync)
    assert code(other) != code(sync)


# --- stopping early


@pytest.mark.parametrize(("flavour", "method"), BOTH)
def test_a_server_that_dies_at_batch_three_gives_a_report_of_three_batches(
    seeding, server, monkeypatch, flavour, method
):
    at_batch(monkeypatch, 3, server.kill)
    try:
        with pytest.raises(
            cl.SeedError, match="300 of 1000 users were written.*again completes"
        ) as caught:
            seeding(flavour, 1000, method=method)
    finally:
        server.restart()
    report = caught.value.report
    assert (report.written, report.count, report.method) == (300, 1000, method)
    assert report.round_trips == (3 if method in ("pipeline", "bulk") else 300)
    assert isinstance(caught.value.__cause__, redis.RedisError)


@pytest.mark.parametrize("ttl", [None, 60])
@pytest.mark.parametrize(("flavour", "method"), BOTH)
def test_every_user_reported_as_written_exists_when_memory_runs_out(
    seeding, client, monkeypatch, flavour, method, ttl
):
    def leave_little():
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 100_000)

    at_batch(monkeypatch, 2, leave_little)  # the connections that the method opens are open by then
    try:
        with pytest.raises(cl.SeedError, match="maxmemory") as caught:
            seeding(flavour, 20_000, method=method, seed=5, ttl=ttl)
    finally:
        client.config_set("maxmemory", 0)
    written = caught.value.report.written
    assert 200 <= written < 20_000
    assert written % 100 == 0
    assert dict(cl.generate_users(written, seed=5)).items() <= contents(client).items()


@pytest.mark.parametrize(("flavour", "method"), BOTH)
def test_seeding_again_after_a_failure_completes(seeding, client, monkeypatch, flavour, method):
    with monkeypatch.context() as broken:
        at_batch(broken, 2, lambda: client.config_set("maxmemory", 1))
        with pytest.raises(cl.SeedError):
            seeding(flavour, 500, method=method, seed=5)
    client.config_set("maxmemory", 0)
    seeding(flavour, 500, method=method, seed=5)
    assert contents(client) == dict(cl.generate_users(500, seed=5))


@pytest.fixture
def patient(server, client):
    """A client that would wait for a frozen server much longer than any test."""
    with redis.Redis.from_url(server.url, decode_responses=True, socket_timeout=60) as patient:
        yield patient


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_frees_the_caller_at_once_and_carries_the_report(
    server, patient, monkeypatch, method
):
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    at_batch(monkeypatch, 2, lambda: (server.freeze(), interrupt.start()))
    start = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            cl.seed(patient, 500, method=method, seed=6)
    finally:
        server.thaw()
    assert time.perf_counter() - start < 30  # the client alone would have waited for 60
    assert caught.value.report.written == 200
    assert "200 of 500" in caught.value.__notes__[0]
    assert dict(cl.generate_users(200, seed=6)).items() <= contents(patient).items()
    monkeypatch.undo()
    cl.seed(patient, 500, method=method, seed=6)
    assert contents(patient) == dict(cl.generate_users(500, seed=6))


def test_threads_end_on_their_own_after_an_interrupt(server, patient, monkeypatch):
    before = set(threading.enumerate())
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    at_batch(monkeypatch, 1, lambda: (server.freeze(), interrupt.start()))
    with pytest.raises(KeyboardInterrupt):
        cl.seed(patient, 500, method="threads", prefix="new:")
    left = set(threading.enumerate()) - before
    assert left  # still in their commands: nobody waited for them
    server.thaw()
    for thread in left:
        thread.join(30)
    assert patient.dbsize() <= 150  # 100, and for each of 50 threads the one command that it was in


@pytest.mark.parametrize("method", ASYNC_METHODS)
def test_a_cancellation_comes_through_with_the_report(server, client, monkeypatch, method):
    async def main():
        async with redis.asyncio.Redis.from_url(
            server.url, decode_responses=True, socket_timeout=60
        ) as patient:
            seeding = asyncio.create_task(cl.seed_async(patient, 500, method=method, seed=6))
            at_batch(
                monkeypatch,
                2,
                lambda: (
                    server.freeze(),
                    asyncio.get_running_loop().call_later(0.2, seeding.cancel),
                ),
            )
            with pytest.raises(asyncio.CancelledError) as caught:
                await seeding
            server.thaw()
            return caught.value.report, await asyncio.gather(
                *[patient.get(f"user-{n}") for n in range(1, 50)]
            )

    try:
        report, values = asyncio.run(main())
    finally:
        server.thaw()
    assert report.written == 200
    assert values == [value for _, value in itertools.islice(cl.generate_users(500, seed=6), 49)]


def careless(client, batch, expire):
    """What bulk would be without its guard."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_packed_command([seeder._packed(batch, expire)[0]])
        connection.read_response()
    finally:
        client.connection_pool.release(connection)


@pytest.mark.parametrize(("write", "right"), [(seeder._bulk, True), (careless, False)])
def test_an_interrupted_bulk_leaves_no_reply_for_the_next_caller(
    server, client, monkeypatch, write, right
):
    client.set("mine", "my value")
    send = redis.connection.AbstractConnection.send_packed_command

    def interrupted(*args, **kwargs):
        send(*args, **kwargs)
        raise KeyboardInterrupt

    with redis.Redis.from_url(
        server.url, decode_responses=True, socket_timeout=60, max_connections=1
    ) as one:
        one.ping()
        server.freeze()  # so that the reply is still on its way when the next caller comes
        try:
            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(
                    redis.connection.AbstractConnection, "send_packed_command", interrupted
                )
                write(one, {"other": "x"}, {})
            sent = threading.Event()
            monkeypatch.setattr(
                redis.connection.AbstractConnection,
                "send_packed_command",
                lambda *args, **kwargs: (send(*args, **kwargs), sent.set()),
            )
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(one.get, "mine")
                assert sent.wait(30)
                server.thaw()
                assert (answer.result() == "my value") is right
        finally:
            server.thaw()


def test_one_failing_task_of_gather_ends_the_others(
    server, client, run_async, aclient, monkeypatch
):
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(cl.SeedError) as caught:
            run_async(cl.seed_async(aclient, 100, method="gather"))
    finally:
        client.config_set("maxmemory", 0)
    assert isinstance(
        caught.value.__cause__, redis.ResponseError
    )  # the error itself, not a group of them
    assert client.dbsize() == 0


# --- size, speed, progress


@pytest.mark.parametrize("method", ["bulk"])
def test_a_million_users_stream_within_fifty_megabytes(server, client, method):
    code = """
import re, resource, sys, cachelab as cl

def peak():  # bytes; on Linux getrusage would begin with the peak of the parent process
    if sys.platform == "linux":
        return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

client = cl.connect(sys.argv[1])
cl.seed(client, 1000, method=sys.argv[2])
before = peak()
cl.seed(client, 1_000_000, method=sys.argv[2])
after = peak()
users = dict(cl.generate_users(1_000_000))
print(after - before, peak() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, server.url, method], capture_output=True, text=True, check=True
    )
    grown, control = map(int, run.stdout.split())
    assert grown < 50e6 < control
    assert client.dbsize() == 1_000_000
    client.flushall()


@pytest.mark.parametrize("ttl", [None, 60])
def test_bulk_is_faster_than_a_pipeline(client, ttl):
    def seconds(method):
        return cl.seed(client, 5000, method=method, ttl=ttl).seconds

    bulk, pipeline = zip(*[(seconds("bulk"), seconds("pipeline")) for _ in range(5)], strict=True)
    assert min(bulk) < min(pipeline)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_progress_is_shown_only_when_asked_for(seeding, capfd, flavour):
    seeding(flavour, 1000)
    assert capfd.readouterr() == ("", "")
    seeding(flavour, 1000, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "100%" in shown.err.splitlines()[-1]
    assert "1000/1000" in shown.err
    assert "users/s" in shown.err


def test_a_seeding_that_stops_leaves_its_bar_where_it_stopped(client, monkeypatch, capfd):
    def interrupt():
        raise KeyboardInterrupt

    at_batch(monkeypatch, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        cl.seed(client, 1000, progress=True)
    assert "300/1000" in capfd.readouterr().err
