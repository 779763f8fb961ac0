"""Calls from anywhere: signal handlers, finalisers, forked children; time limits of others."""

import asyncio
import gc
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cachelab.errors import InvalidationPending
from cachelab.lab.contract.child import Child, Say
from cachelab.lab.contract.promises import promise
from cachelab.lab.contract.trial import READERS, Bench, expect, same

WHILE = 0.5  # seconds that calls are interrupted, with Redis and again without
EVERY = 0.001  # seconds between signals
CHILDREN = 15  # that are forked with Redis, and again without
LIMIT = 0.05  # seconds: a time limit that ends while a frozen Redis is waited for


@promise("a signal handler may read and invalidate in the middle of any call")
def signal_handlers_may_call(trial: Bench) -> None:
    trial.is_for("plain")
    cache = trial.make().cache

    def work(say: Say) -> None:
        failed: list[str] = []

        def handle(*_: object) -> None:
            _call(failed, cache.invalidate, "ada")
            _call(failed, cache.get, "bob")
            signal.setitimer(signal.ITIMER_REAL, EVERY)  # one at a time

        cache.get("ada")
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, EVERY)
        seen = _busy(cache, failed)
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(json.dumps([seen, failed[:1]]))

    _with_and_without_redis(trial, work)


@promise("a finaliser may invalidate wherever the garbage collector runs it")
def finalisers_may_call(trial: Bench) -> None:
    trial.is_for("plain")
    cache = trial.make().cache

    def work(say: Say) -> None:
        failed: list[str] = []

        class Session:
            def __init__(self) -> None:
                self.myself = self  # in a cycle: it is the collector that ends it

            def __del__(self) -> None:
                _call(failed, cache.invalidate, "ada")

        gc.set_threshold(20)
        seen = _busy(cache, failed, Session)
        say(json.dumps([seen, failed[:1]]))

    _with_and_without_redis(trial, work)


def _with_and_without_redis(trial: Bench, work: Callable[[Say], None]) -> None:
    """Have a child read and invalidate while it is interrupted: it must end, and read right."""
    seen, failed = json.loads(trial.in_a_child(work))
    same(seen, ["Ada"], "what was read")
    expect(not failed, f"a call raised {failed}")
    trial.place.kill()  # what is counted and kept then may have locks, too
    seen, _ = json.loads(trial.in_a_child(work))  # that calls raise there is another matter
    expect({"Ada", None}.issuperset(seen), f"without Redis {seen} was read")


def _busy(cache: Any, failed: list[str], between: Callable[[], object] = object) -> list[Any]:
    """Read and invalidate for a while; return what was read of ada."""
    seen, number = set(), 0
    until = time.monotonic() + WHILE
    while time.monotonic() < until:
        between()
        number += 1
        seen.add(_call(failed, cache.get, "ada"))
        _call(failed, cache.get, f"u{number}")
        _call(failed, cache.invalidate, "bob")
    return list(seen)


def _call(failed: list[str], method: Callable, id: str) -> Any:
    try:
        return method(id)
    except InvalidationPending:
        pass  # kept, and said so
    except Exception as error:
        failed.append(repr(error))
    return None


@promise("a forked child reads on, whatever its parent's threads were doing")
def forked_children_may_call(trial: Bench) -> None:
    trial.is_for("plain")
    blocking = trial.make()
    cache = blocking.cache

    def read(say: Say) -> None:
        trial.origin.go.set()
        say(repr((cache.get("ada"), cache.get("bob"))))

    def fork(times: int, when: str) -> None:
        for _ in range(times):
            same(trial.in_a_child(read), repr(("Ada", "Bob")), f"what a child read {when}")

    cache.get("bob")
    trial.origin.hold(once=True)
    held = trial.start_read(blocking)  # its flight and its slot are the parent's
    trial.client.flushall()  # its lease would be waited for, and rightly so
    with _busy_threads(trial, cache):
        fork(CHILDREN, "while threads were reading")
    trial.place.freeze()
    reads = [trial.call(cache.get, f"u{number}") for number in range(2 * READERS)]
    time.sleep(0.05)
    with Child(read) as child:  # of a parent in which all that may wait for Redis does so
        trial.place.thaw()
        seen = child.hear(trial.patience)
        same(seen, repr(("Ada", "Bob")), "what a child read while Redis was waited for")
    trial.place.kill()
    with _busy_threads(trial, cache):
        fork(CHILDREN, "while threads were reading without Redis")
    trial.origin.go.set()
    for each in (*reads, held):
        each.result(trial.patience)


@contextmanager
def _busy_threads(trial: Bench, cache: Any) -> Iterator[None]:
    """Have threads read and invalidate until the block ends."""
    is_over = threading.Event()

    def work(id: str) -> None:
        while not is_over.is_set():
            for method in (cache.get, cache.invalidate):
                _call([], method, id)

    workers = [trial.start(work, f"u{number}") for number in range(8)]
    try:
        yield
    finally:
        is_over.set()
    for worker in workers:
        worker.result(trial.patience)


@promise("a time limit that ends while Redis is waited for reaches who set it, and is no failure")
def time_limits_pass(trial: Bench) -> None:
    cache = trial.make()
    cache.get("ada")
    before = _errors(cache.cache)
    trial.place.freeze()
    limited = _limited_async if trial.is_async else _limited
    for _ in range(3):
        limited(trial, cache.cache)
    same(_errors(cache.cache), before, "errors that the cache counts as Redis'")
    trial.place.thaw()
    same([cache.get("ada"), cache.get("bob")], ["Ada", "Bob"], "reads after it")


def _limited(trial: Bench, cache: Any) -> None:
    """Have a signal handler raise in the middle of a read."""
    mine, raised = TimeoutError("a time limit"), []

    def end(*_: object) -> None:
        raised.append(mine)
        raise mine

    before = signal.signal(signal.SIGALRM, end)
    try:
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        value = cache.get("ada")
        signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError as error:
        expect(error is mine, f"the reader got {error!r} instead of the handler's own")
    else:
        expect(not raised, f"the reader got {value!r}, and the handler's exception was lost")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _limited_async(trial: Bench, cache: Any) -> None:
    """Have a task's time limit end in the middle of a read."""

    async def read() -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT):
                value = await cache.get("ada")
        except TimeoutError:
            return
        took = time.monotonic() - started
        expect(took < LIMIT, f"a read with a limit of {LIMIT} s gave {value!r} after {took:.2f} s")

    trial.run(read())


def _errors(cache: Any) -> object:
    """Return how many errors the cache counts, where it counts any."""
    return getattr(getattr(cache, "stats", None), "errors", None)
