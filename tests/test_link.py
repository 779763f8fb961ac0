import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis
from conftest import at_best
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachelab import Server
from cachelab.errors import ServerError
from cachelab.lab.measure.link import Link
from cachelab.server.server import _valkey

BAD_PLACES = [
    "",
    "localhost:6379",
    "http://h:1",
    "redis://:secret@h:port",
    "redis://:secret@h:65536",
    "redis://",
    "unix://",
]


@pytest.fixture(scope="module")
def running(server: Server) -> Iterator[Link]:
    with Link(server.url) as link:
        yield link


@pytest.fixture
def link(running: Link) -> Link:
    """The module's link as new: whole, quick, in nobody's way."""
    running.heal()
    running.thaw()
    running.drip(None)
    running.rtt_ms = 0
    return running


def connect(url: str, timeout: float = 5.0) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))


def raw(link: Link) -> socket.socket:
    """A bare connection through the link, logged in: a test sees single bytes and resets."""
    sock = socket.create_connection(("127.0.0.1", link.port), timeout=5)
    sock.sendall(b"AUTH %s\r\n" % urlsplit(link.url).password.encode())
    assert sock.recv(100) == b"+OK\r\n"
    return sock


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(2**16)):
        data += piece
    return data


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def soon(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return held


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_url_keeps_the_credentials_and_the_database(server: Server):
    with Link(server.url.partition("?")[0].rstrip("/0") + "/3") as link:
        ours, theirs = urlsplit(link.url), urlsplit(server.url)
        assert (ours.scheme, ours.password, ours.path) == ("redis", theirs.password, "/3")
        assert (
            (ours.hostname, ours.port) == ("127.0.0.1", link.port) != (theirs.hostname, theirs.port)
        )
        with connect(link.url) as client:
            assert client.client_info()["db"] == 3


def test_a_server_behind_a_unix_socket_is_reached_by_tcp(tmp_path: Path):
    path, program = tmp_path / "socket", tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec "{_valkey()}" "$@" --unixsocket "{path}"\n')
    program.chmod(0o700)
    with Server(binary=program) as server:
        with (
            Link(f"unix://:{urlsplit(server.url).password}@{path}?db=2") as link,
            connect(link.url) as client,
        ):
            assert link.url.startswith("redis://:")
            assert client.client_info()["db"] == 2


def test_a_round_trip_lasts_at_least_the_time_that_is_set(link: Link):
    quick = link.measured_ms(5)
    link.rtt_ms = 20
    assert link.rtt_ms == 20
    assert link.measured_ms(5) > 18 > quick
    assert link.added_ms(5) > 15


def test_numbers_of_any_type_are_taken(link: Link):
    link.rtt_ms = np.float32(1.5)
    assert type(link.rtt_ms) is float and link.measured_ms(np.int8(3)) > 1
    link.drip(np.int32(5000))


def test_a_pipeline_pays_the_round_trip_once(link: Link):
    link.rtt_ms = 20
    with connect(link.url) as client, client.pipeline(transaction=False) as pipeline:
        client.ping()
        one_by_one = seconds(lambda: [client.ping() for _ in range(11)])

        def is_quick() -> bool:
            for _ in range(100):
                pipeline.ping()
            return seconds(pipeline.execute) < 10 * 0.018

        assert one_by_one > 10 * 0.018 and at_best(is_quick)


def test_fifty_threads_at_once_each_get_their_own_value(link: Link):
    link.rtt_ms = 1
    with connect(link.url) as client, ThreadPoolExecutor(50) as pool:
        start = threading.Barrier(50)

        def own(number: int) -> set[bytes]:
            start.wait(5)
            return {client.echo(f"{number}") for _ in range(20)}

        assert list(pool.map(own, range(50))) == [{b"%d" % number} for number in range(50)]


def test_five_megabytes_in_random_pieces_arrive_whole_and_in_order(link: Link):
    draw = random.Random(0)
    values = [draw.randbytes(draw.choice([1, 100, 10_000, 300_000])) for _ in range(80)]
    replies = b"".join(b"$%d\r\n%s\r\n" % (len(value), value) for value in values)
    commands = b"".join(
        b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(value), value) for value in values
    )
    assert len(replies) > 5_000_000

    def send() -> None:
        at = 0
        for turn in range(len(commands)):
            if at >= len(commands):
                return
            link.rtt_ms = (turn * 7) % 6  # a delay that shrinks must not let later bytes overtake
            at += sock.send(commands[at : at + draw.randrange(1, 200_000)])

    with raw(link) as sock, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send)
        assert receive(sock, len(replies)) == replies
        sent.result()


def test_a_reply_still_comes_after_the_client_has_ended_its_side(link: Link):
    with raw(link) as sock:
        sock.sendall(b"PING\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 100) == b"+PONG\r\n"


def test_a_connection_that_the_server_closes_ends_at_the_client(link: Link, client: redis.Redis):
    with raw(link) as sock:
        sock.sendall(b"CLIENT ID\r\n")
        assert client.client_kill_filter(_id=sock.recv(100).decode()[1:].strip()) == 1
        assert sock.recv(100) == b""


def test_closed_connections_leave_none_behind_at_the_server(link: Link, client: redis.Redis):
    before = client.info("clients")["connected_clients"]
    socks = [raw(link) for _ in range(20)]
    assert client.info("clients")["connected_clients"] == before + 20
    for sock in socks:
        sock.close()
    assert soon(lambda: client.info("clients")["connected_clients"] == before)


def test_a_cut_resets_old_and_new_connections_until_healed(link: Link):
    with raw(link) as sock, connect(link.url) as client:
        link.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.ping()
        link.heal()
        assert client.ping()


def test_a_freeze_holds_bytes_and_a_thaw_delivers_them_on_the_same_connection(link: Link):
    with raw(link) as sock, connect(link.url, timeout=0.1) as client:
        link.freeze()
        sock.sendall(b"PING\r\n")
        with pytest.raises(redis.TimeoutError):
            client.ping()
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(100)
        link.thaw()
        sock.settimeout(5)
        assert sock.recv(100) == b"+PONG\r\n"


def test_a_frozen_link_can_be_cut(link: Link):
    with raw(link) as sock:
        link.freeze()
        link.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    link.heal()
    with connect(link.url) as client:
        assert client.ping()


def test_bytes_on_their_way_are_held_by_a_freeze_too(link: Link, client: redis.Redis):
    with raw(link) as sock:
        link.rtt_ms = 400
        sock.sendall(b"SET key value\r\n")
        link.freeze()
        sock.settimeout(1.5)
        with pytest.raises(TimeoutError):
            sock.recv(100)
        assert client.get("key") is None
        link.thaw()
        assert sock.recv(100) == b"+OK\r\n"
        assert client.get("key") == "value"


def test_dripped_replies_come_in_many_pieces(link: Link):
    def pieces() -> list[bytes]:
        sock.sendall(b"ECHO 0123456789\r\n")
        seen = []
        while sum(map(len, seen)) < 17:
            seen.append(sock.recv(100))
        assert b"".join(seen) == b"$10\r\n0123456789\r\n"
        return seen

    with raw(link) as sock:
        assert len(pieces()) == 1
        link.drip(100)
        assert at_best(lambda: len(pieces()) > 4)
        link.drip(None)
        assert len(pieces()) == 1


@pytest.mark.parametrize("n", [0, 1, 6])
def test_a_reply_is_cut_after_so_many_bytes_and_only_once(link: Link, n: int):
    with raw(link) as sock:
        link.cut_after(n)
        sock.sendall(b"PING\r\n")
        if n:
            assert receive(sock, n) == b"+PONG\r\n"[:n]
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    with connect(link.url) as client:
        assert client.ping()


def test_an_idle_link_uses_no_processor_time(server: Server):
    def used(idle: float) -> float:
        before = getrusage(RUSAGE_CHILDREN)
        with Link(server.url, rtt_ms=1) as link, raw(link), raw(link):
            time.sleep(idle)
        after = getrusage(RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert used(1.0) - used(0.0) < 0.5  # polling all the time would use 1.0


ORPHAN = """
import os, sys, time
from cachelab.lab.measure.link import Link
link = Link(sys.argv[1]).start()
child = os.fork() if sys.argv[2] == "forked" else 0
if sys.argv[2] == "alone" or child:
    print(link.port, child, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "how", ["alone", "forked"]
)  # a forked child holds the pipe to the relay open
def test_the_relay_dies_with_a_parent_that_is_killed(server: Server, how: str):
    command = [sys.executable, "-c", ORPHAN, server.url, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        port, child = map(int, parent.stdout.readline().split())
        try:
            assert not refuses(port)
            parent.kill()
            assert soon(lambda: refuses(port))
        finally:
            parent.kill()
            if child:
                os.kill(child, signal.SIGKILL)


def test_a_stopped_link_leaves_no_process_and_no_open_file(server: Server):
    before = len(os.listdir("/dev/fd"))
    with Link(server.url) as link:
        pid, port = link._process.pid, link.port
        os.kill(pid, 0)
        assert len(os.listdir("/dev/fd")) > before
    link.stop()
    assert len(os.listdir("/dev/fd")) == before
    assert refuses(port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_link_that_nobody_holds_takes_its_relay_along(server: Server):
    link = Link(server.url).start()
    relay = link._process
    assert relay and relay.poll() is None
    del link
    gc.collect()
    assert relay.returncode == -9
    link = Link(server.url).start()
    relay = link._process
    link._end.detach()  # control: without its finaliser
    del link
    gc.collect()
    assert relay and relay.poll() is None
    with relay:
        relay.kill()


def test_a_stopped_link_says_so_and_can_be_started_again(server: Server):
    link = Link(server.url, rtt_ms=1)
    for use in (lambda: link.url, link.cut, link.measured_ms):
        with pytest.raises(ServerError, match="not running"):
            use()
    for _ in range(2):
        with link, connect(link.url) as client:
            assert client.ping()


def test_a_relay_that_was_killed_is_reported(server: Server):
    with Link(server.url) as link:
        os.kill(link._process.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="has ended"):
            link.cut()


def test_two_links_in_front_of_one_server_do_not_disturb_each_other(server: Server, link: Link):
    with Link(server.url) as other, connect(other.url) as client:
        link.cut()
        assert client.ping()


def test_a_server_that_is_away_is_named_without_the_password():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerError, match=f"127.0.0.1:{port}") as seen:
        Link(f"redis://:secret@127.0.0.1:{port}/0").start()
    assert "secret" not in str(seen.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])  # the server speaks no TLS
def test_a_wrong_password_or_protocol_is_reported_and_leaves_no_relay(server: Server, scheme: str):
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(ServerError, match="PING") as seen:
        Link(f"{scheme}://:wr0ng@127.0.0.1:{server.port}/0").start()
    assert "wr0ng" not in str(seen.value)
    assert len(os.listdir("/dev/fd")) == before


def test_the_password_stands_in_no_repr(link: Link):
    password = urlsplit(str(link.url)).password
    assert password and password in link.url
    assert password not in repr(link) and password not in repr([link.url, vars(link)])
    assert str(link.port) in repr(link)


def test_a_link_whose_url_was_refused_has_a_repr():
    half = Link.__new__(Link)
    with pytest.raises(ValueError):
        half.__init__("redis://default:secret")
    assert repr(half) == "<Link to nowhere: stopped, rtt_ms=0>"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@h:port",
        "redis://default:hunter2",
        "redis://h/0?password=a@hunter2",
        "redis://p/hunter2@h",
        b"redis://:hunter2@h",
        ["redis://:hunter2@h"],
    ],
)
def test_no_traceback_shows_a_password(url: object):
    with pytest.raises((ValueError, TypeError)) as seen:
        Link(url)
    shown = traceback.TracebackException.from_exception(seen.value, capture_locals=True)
    inside = [one for one in shown.stack if one.filename.endswith("measure/link.py")]
    assert inside and all("hunter2" not in repr(frame.locals) for frame in inside)
    assert "hunter2" not in str(seen.value)


@pytest.mark.parametrize("url", BAD_PLACES)
def test_a_url_that_names_no_server_is_refused(url: str):
    with pytest.raises(ValueError, match="url must read") as seen:
        Link(url)
    assert "secret" not in str(seen.value)


@pytest.mark.parametrize("url", [None, 5, b"redis://h:1"])
def test_a_url_that_is_no_text_is_refused(url: object):
    with pytest.raises(TypeError, match="url"):
        Link(url)


@pytest.mark.parametrize("rtt_ms", [-1, float("nan"), float("inf"), 60_001, True, "1", None])
def test_a_bad_round_trip_time_is_refused_and_changes_nothing(link: Link, rtt_ms: object):
    with pytest.raises((ValueError, TypeError), match="rtt_ms"):
        Link("redis://localhost:1", rtt_ms)
    with pytest.raises((ValueError, TypeError), match="rtt_ms"):
        link.rtt_ms = rtt_ms
    assert link.rtt_ms == 0


@pytest.mark.parametrize(
    ("call", "value"),
    [("drip", 0), ("drip", True), ("cut_after", -1), ("measured_ms", 0), ("added_ms", 2.5)],
)
def test_a_bad_number_is_refused(link: Link, call: str, value: object):
    with pytest.raises((ValueError, TypeError), match="must"):
        getattr(link, call)(value)
