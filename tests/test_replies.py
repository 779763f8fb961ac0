"""Nonsense where a reply is expected is one RedisError, at once and without gigabytes."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from doors import listener

import cachelab as cl
from cachelab.clients.replies import check_sizes

HELLO = b"%1\r\n+proto\r\n:3\r\n"
NONSENSE = [
    *(b"+OK", b"+", b"+PONG", b":1", b":", b":x", b"$-1", b"$0\r\n", b"$1\r\nx", b"$3\r\nabc"),
    *(b"*0", b"*-1", b"*1\r\n:1", b"*2\r\n+OK\r\n+OK", b"*1\r\n*0", b"_", b"#t", b"#f", b",1.5"),
    *(b"(123", b"=7\r\ntxt:abc", b"%0", b"~0", b"%1\r\n+a\r\n+b", b">1\r\n+x", b"-ERR x"),
    *(b"-WRONGTYPE x", b"-", b"HTTP/1.1 400 Bad Request", b"\x15\x03\x01\x00\x02", b"\x00" * 40),
    *(
        b"!3\r\nabc",
        b"*x",
        b"$x",
        b"%-5",
        b"$-5",
        b"*1\r\n$",
        b"$99999999999",
        b"-LOADING x",
        b"-NOAUTH x",
    ),
]
HUGE = [
    *(b"*999999999", b"%999999999", b"~999999999", b">999999999", b"|999999999"),
    *(b"*4294967295", b"*1\r\n*999999999", b"*2\r\n$3\r\nabc\r\n%99999999"),
    *(b"*99999999999999999999999999", b"*9223372036854775807"),
]


def repeating(reply: bytes, greets: bool):
    """Say the same to everything, or from the second command on."""

    def behave(peer):
        if greets:
            peer.recv(10_000)
            peer.sendall(HELLO)
        while peer.recv(10_000):
            peer.sendall(reply + b"\r\n")

    return behave


def failure(call) -> Exception:
    began = time.monotonic()
    with pytest.raises(redis.RedisError) as caught:
        call()
    assert time.monotonic() - began < 4  # a call that waits gives up after 0.4 s, redis-py later
    return caught.value


STATUS = Path("/proc/self/status")
# In a process of its own: the most that this one ever asked for may be more than any reply's.
ROOM_FOR_REPLIES = """
import asyncio, pathlib, re, sys
import redis
import cachelab as cl
from test_replies import ask

def peak():
    return int(re.search(r"VmPeak:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

def ours(url):
    for read in (cl.connect(url, check=False, retries=0).get, lambda _: asyncio.run(ask(url))):
        try:
            read("a")
        except redis.RedisError as error:
            assert "announces" in str(error), error

def plain(url):
    try:
        redis.Redis.from_url(url, socket_timeout=0.2, retry=None).get("a")
    except redis.RedisError:
        pass

before = peak()
{"ours": ours, "plain": plain}[sys.argv[1]](sys.argv[2])
print(peak() - before)
"""


def room_for_replies(client: str, url: str) -> int:
    """Return how many KB a process asked for to read replies from there, with our client or not."""
    command = [sys.executable, "-c", ROOM_FOR_REPLIES, client, url]
    ran = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


async def ask(url: str):
    client = cl.connect_async(url)
    try:
        return await client.get("a")
    finally:
        await client.connection_pool.disconnect()


@pytest.mark.parametrize("reply", NONSENSE + HUGE)
def test_a_port_that_says_the_same_to_everything_is_no_redis(reply):
    with listener(repeating(reply, greets=False)) as url:
        client = cl.connect(url, check=False)
        failure(lambda: client.get("a"))
        failure(client.pipeline(transaction=False).get("a").get("b").execute)
        failure(lambda: asyncio.run(ask(url)))
        client.connection_pool.disconnect()


@pytest.mark.parametrize("reply", HUGE)
def test_a_reply_that_announces_too_much_is_refused_as_it_is_read(reply):
    with listener(repeating(reply, greets=True)) as url:
        client = cl.connect(url, check=False, retries=0)
        assert "announces" in str(failure(lambda: client.get("a")))
        assert "announces" in str(failure(lambda: asyncio.run(ask(url))))


@pytest.mark.skipif(
    not STATUS.exists(), reason="only Linux tells how much memory was ever asked for"
)
@pytest.mark.parametrize(("client", "makes_room"), [("ours", False), ("plain", True)])
def test_our_clients_make_no_room_for_what_is_announced(client, makes_room):
    with listener(repeating(b"*99999999", greets=True)) as url:
        assert (room_for_replies(client, url) > 200_000) is makes_room


@pytest.mark.parametrize("head", [b"*", b"*9", b"*9999999999999"])
def test_a_size_that_arrives_in_pieces_is_looked_at_when_its_line_ends(head):
    def behave(peer):
        peer.recv(10_000)
        peer.sendall(HELLO)
        peer.recv(10_000)
        peer.sendall(head)
        time.sleep(0.05)  # a segment of its own
        peer.sendall(b"999999999\r\n")
        peer.recv(10_000)

    with listener(behave) as url:
        client = cl.connect(url, check=False, retries=0)
        assert "announces" in str(failure(lambda: client.get("a")))
        assert "announces" in str(failure(lambda: asyncio.run(ask_once(url))))


async def ask_once(url: str):
    client = cl.connect_async(url, retries=0)
    try:
        return await client.get("a")
    finally:
        await client.connection_pool.disconnect()


def test_values_that_look_like_sizes_and_big_replies_come_back(client, aclient, run_async):
    client.mset({"a": "*999999999\r\n", "b": "x\r\n*99999999999\r\n"})
    assert client.mget("a", "b") == ["*999999999\r\n", "x\r\n*99999999999\r\n"]
    client.rpush("list", *range(100_000))
    assert len(client.lrange("list", 0, -1)) == 100_000
    names = [f"k{n}" for n in range(100_000)]
    assert client.mget(names) == [None] * 100_000
    assert run_async(aclient.mget(names)) == [None] * 100_000


@pytest.mark.parametrize("head", [b"$3\r\nabc\r\n", b"*1\r\n$11\r\n*999999999\n\r\n", b"*0\r\n"])
def test_ordinary_replies_pass(head):
    assert check_sizes(head) is None


def test_a_value_that_is_no_text_stays_an_error_of_decoding(client):
    client.execute_command("SET", "a", b"\xff")
    with pytest.raises(UnicodeDecodeError):
        client.get("a")
