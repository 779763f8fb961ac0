"""Callers of a server: what their calls cost it, many of them at once, one that comes between."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import redis

from cachelab import _check

# What the other process of `beside` does first; a line on its output says that it is ready.
_OTHER = """
import os
from time import sleep
from cachelab import connect
client = connect(os.environ["CACHELAB_BESIDE"], timeout=5)
print(flush=True)
"""


class Cost(NamedTuple):
    """What a call returned, and what the server counted meanwhile.

    Attributes:
        result: What the call returned.
        commands: That the server executed, those inside scripts and transactions too.
        connections: That the server accepted.
    """

    result: Any
    commands: int
    connections: int


def counted(watcher: redis.Redis, call: Callable[..., Any], *arguments: Any) -> Cost:
    """Call, and ask the server before and after what it has counted since it started.

    Args:
        watcher: A client of the server; the commands of all clients count, but for its two INFO.
        call: What is counted.
        *arguments: What it is called with.
    """
    before = watcher.info("stats")
    result = call(*arguments)
    after = watcher.info("stats")
    commands, connections = (
        after[name] - before[name]
        for name in ("total_commands_processed", "total_connections_received")
    )
    return Cost(result, commands - 1, connections)  # the first INFO counts itself when it is done


def crowd(
    call: Callable[[], Any], threads: int = 50, times: int = 1, limit: float = 60.0
) -> list[Any]:
    """Call from many threads, which set off at the same moment, and return what the calls returned.

    Args:
        call: What each thread calls.
        threads: How many.
        times: How often each of them calls.
        limit: Seconds that all of it may take. Threads that wait longer are left behind; they call
            no more, and keep no program from ending.

    Raises:
        TimeoutError: Some threads still wait after ``limit``.
        Exception: What a call raised first, once all threads have ended.
    """
    threads = _check.whole("threads", threads, least=1)
    times = _check.whole("times", times, least=1)
    ends = monotonic() + _check.wait("limit", limit)
    start, is_over = threading.Barrier(threads), threading.Event()
    results: list[Any] = []
    errors: list[Exception] = []

    def work() -> None:
        start.wait()
        try:
            for _ in range(times):
                if not is_over.is_set():
                    results.append(call())
        except Exception as error:
            errors.append(error)

    team = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join(max(0.0, ends - monotonic()))
    is_over.set()
    if waiting := sum(thread.is_alive() for thread in team):
        raise TimeoutError(f"{waiting} of {threads} threads still wait after {limit:g} s")
    if errors:
        raise errors[0]
    return results


def beside(url: str, program: str, call: Callable[[], object]) -> list[float]:
    """Call without pause while another process runs a program, and return how long calls took.

    Args:
        url: The server that both use.
        program: Python source for the other process, which finds there a ``client`` of the server,
            and ``sleep``. The calls begin when it does, and go on until its process has ended.
        call: What is called.

    Returns:
        Seconds, one a call.

    Raises:
        subprocess.CalledProcessError: The program failed; what it said is on this one's stderr.
    """
    command = [sys.executable, "-c", _OTHER + program]
    environment = os.environ | {"CACHELAB_BESIDE": str.__str__(url)}
    times: list[float] = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        while other.poll() is None:
            began = perf_counter()
            call()
            times.append(perf_counter() - began)
    if other.returncode:
        raise subprocess.CalledProcessError(other.returncode, "the other program")
    return times


@contextmanager
def after_first(client: redis.Redis, act: Callable[[], object], times: int = 1) -> Iterator[None]:
    """Act inside the block, as another program might: after what the client sends first.

    A function that reads, then decides, then writes meets here what it does not expect. A pipeline
    that is executed, and each command of one that watches keys, is a sending too.

    Args:
        client: Whose commands are watched.
        act: What happens; it uses another client.
        times: After how many sendings, from the first on.
    """
    times = _check.whole("times", times, least=1)
    acted = 0

    def then_act(send: Callable[..., Any]) -> Callable[..., Any]:
        def sent(*arguments: Any, **options: Any) -> Any:
            nonlocal acted
            try:
                return send(*arguments, **options)
            finally:
                if acted < times:
                    acted += 1
                    act()

        return sent

    def pipeline(*arguments: Any, **options: Any) -> Any:
        block = type(client).pipeline(client, *arguments, **options)
        for name in ("immediate_execute_command", "execute"):
            setattr(block, name, then_act(getattr(block, name)))
        return block

    vars(client).update(execute_command=then_act(client.execute_command), pipeline=pipeline)
    try:
        yield
    finally:
        del vars(client)["execute_command"], vars(client)["pipeline"]
