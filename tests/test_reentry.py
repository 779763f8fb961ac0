"""A client may be called from anywhere: handlers, finalisers, forked children of busy processes."""

import subprocess
import sys
import textwrap
import threading

import pytest

from cachelab import _locks

HEAD = """
import gc, os, signal, sys, threading, time
import redis
import cachelab as cl
from redis.backoff import NoBackoff
from redis.retry import Retry

def plain():
    pool = redis.BlockingConnectionPool.from_url(sys.argv[1], decode_responses=True)
    return redis.Redis(connection_pool=pool)

def ours():
    return cl.connect(sys.argv[1], timeout=10)

client = {"plain": plain, "ours": ours}[sys.argv[2]]()
client.set("a", "1")
"""

EVERY_LINE = """
names = ("queue", "redis.connection", type(client.connection_pool).__module__)
files = {sys.modules[name].__file__ for name in names}
inner = 0

def trace(frame, event, _):
    global inner
    if frame.f_code.co_filename not in files:
        return None
    if event == "line":
        sys.settrace(None)
        inner += client.get("a") == "1"
        sys.settrace(trace)
    return trace

sys.settrace(trace)
client.get("a")
client.get("a")
sys.settrace(None)
assert inner > 50, inner
"""

EVERY_MILLISECOND = """
depth = handled = 0

def handler(*_):
    global depth, handled
    if depth < 3:
        depth += 1
        assert client.get("a") == "1"
        depth -= 1
        handled += 1

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
end = time.monotonic() + 2
while time.monotonic() < end:
    assert client.get("a") == "1"
signal.setitimer(signal.ITIMER_REAL, 0)
assert handled > 100, handled
"""

EVERY_COLLECTION = """
tidied = 0

class Session:
    def __init__(self):
        self.me = self
    def __del__(self):
        global tidied
        tidied += client.get("a") == "1"

gc.set_threshold(3)
for _ in range(2000):
    Session()
    assert client.get("a") == "1"
assert tidied > 100, tidied
"""


def run(code: str, url: str, kind: str, seconds: float = 60) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", HEAD + textwrap.dedent(code), url, kind]
    return subprocess.run(command, timeout=seconds, capture_output=True, text=True)


@pytest.mark.parametrize(
    "code", [EVERY_LINE, EVERY_MILLISECOND, EVERY_COLLECTION], ids=["line", "signal", "collection"]
)
def test_a_call_may_interrupt_another_anywhere_in_its_pool(server, code):
    done = run(code, server.url, "ours")
    assert done.returncode == 0, done.stderr


def test_redis_pys_own_pool_hangs_when_a_call_interrupts_another(server):
    with pytest.raises(subprocess.TimeoutExpired):
        run(EVERY_LINE, server.url, "plain", seconds=5)


def test_children_forked_from_busy_threads_can_call(server):
    done = run(
        """
        busy = True

        def call():
            while busy:
                client.get("a")
                client.connection_pool._get_free_connections()

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        failed = 0
        for _ in range(300):
            child = os.fork()
            if not child:
                signal.alarm(20)
                os._exit(client.get("a") != "1")
            failed += os.waitpid(child, 0)[1] != 0
        busy = False
        for thread in threads:
            thread.join()
        assert not failed, failed
        """,
        server.url,
        "ours",
        seconds=120,
    )
    assert done.returncode == 0, done.stderr


def held_in_a_child(lock) -> bool:
    """Return whether a child, forked while a thread holds the lock, finds it held."""
    code = f"""
    import os, threading
    from cachelab import _locks
    lock = {lock}
    held, go = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(not lock.acquire(timeout=0.3))
    status = os.waitpid(child, 0)[1]
    go.set()
    thread.join()
    raise SystemExit(status != 0)
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == 1


def test_a_lock_is_free_in_a_forked_child_where_a_plain_one_is_held():
    assert not held_in_a_child("_locks.lock()")
    assert held_in_a_child("threading.RLock()")


def test_a_lock_is_re_entrant_and_keeps_other_threads_out():
    lock, found = _locks.lock(), []
    with lock, lock:
        thread = threading.Thread(target=lambda: found.append(lock.acquire(blocking=False)))
        thread.start()
        thread.join()
    assert found == [False]
