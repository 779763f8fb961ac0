"""The lives of a worker: it works, is killed (-9) at a call that was chosen, and is started again.

Run as a process of its own (`python -m cachelab.lab.faults.lives`): one line of JSON comes in, the
`Job`; one goes out as it begins, and one at the end. Each life is a fork of this process, which has
one thread. The end of its input says that nothing more will be written: the last life ends when it
has found nothing to do for a while.
"""

import json
import os
import runpy
import select
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any, NotRequired, TypedDict

from cachelab.clients import connect
from cachelab.writes.worker import Worker

# Commands that take nothing away: whether a worker dies before or after them is all the same.
READS = {"xreadgroup", "xautoclaim", "xpending", "xrange", "get", "hget", "hgetall", "lrange"}
QUIET = 0.4  # seconds without work after which the last life ends; claims wait for less
PAUSE = 0.03  # seconds before a worker that found nothing looks again: it then finds a batch
PATIENCE = 30.0  # seconds that a life may go on after the last write


class Job(TypedDict):
    """What a worker is, and how often it dies.

    program: a file of Python that defines the function ``name``; it is called with a client and a
    connection of SQLite, and returns something true if it found work. An empty one stands for the
    package's own `Worker`. url: of the server.
    database: a file of SQLite. deaths: at which call each life but the last one ends, in turn.
    arguments: where a call with them is all that is asked for.
    """

    program: str
    name: str
    url: str
    database: str
    deaths: list[int]
    arguments: NotRequired[list[str]]


class Doom:
    """Counts the calls of one life and ends the process, as SIGKILL does, at the chosen one.

    Args:
        left: Calls until then, their ends counted too; 0: never.
    """

    def __init__(self, left: int):
        self.left = left

    def passes(self) -> None:
        """Count one more; the process may end here."""
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call before and after which the process may end."""

        def watched(*args: object, **kwargs: object) -> Any:
            self.passes()
            result = call(*args, **kwargs)
            self.passes()
            return result

        return watched


class Watched:
    """A client, or a connection of a database, before and after whose calls a worker may die.

    Args:
        subject: Whose calls they are.
        doom: What counts them.
        only: The names of those that count; by default all but `READS`.
    """

    def __init__(self, subject: Any, doom: Doom, only: set[str] | None = None):
        self._subject, self._doom, self._only = subject, doom, only

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._subject, name)
        counts = name in self._only if self._only else name not in READS
        if not callable(call) or not counts:
            return call

        return self._pops(call) if name.endswith("pop") else self._doom.around(call)

    def _pops(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call that counts only if something was there."""

        def watched(*args: object, **kwargs: object) -> Any:
            before = self._doom.left
            self._doom.passes()
            result = call(*args, **kwargs)
            if result is None:
                self._doom.left = before
            else:
                self._doom.passes()
            return result

        return watched

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        (self.commit if kind is None else self._subject.rollback)()


def live(job: Job, left: int) -> None:
    """Work until the chosen call, or until there is nothing left to do."""
    work = (_work_of if job["program"] else _package)(job, Doom(left))
    quiet, over = 0, 0.0
    while True:
        if work():
            quiet, worked = 0, time.monotonic()
        elif quiet == 0:
            quiet, worked = 1, time.monotonic()
        elif (quiet := quiet + 1) > 8 and time.monotonic() - worked > QUIET and _is_over():
            return
        over = over or (time.monotonic() if _is_over() else 0.0)
        if over and time.monotonic() - over > PATIENCE:
            raise TimeoutError(f"it finds work without an end: {PATIENCE:g} s after the last write")
        if quiet:
            time.sleep(PAUSE)


def _work_of(job: Job, doom: Doom) -> Callable[[], object]:
    """Return a step of the job's own function."""
    work: Callable[[Watched, Watched], object] = runpy.run_path(job["program"])[job["name"]]
    client = Watched(connect(job["url"], timeout=5), doom)
    database = Watched(sqlite3.connect(job["database"], timeout=20), doom, {"commit"})
    database.execute("PRAGMA synchronous = OFF")  # a killed process loses nothing by that
    return lambda: work(client, database)


def _package(job: Job, doom: Doom) -> Callable[[], object]:
    """Return a step of `Worker`, which may die before and after a commit or an XACK."""
    worker = Worker(connect(job["url"], timeout=5), f"sqlite:///{job['database']}", claim_after=0.1)
    worker._rows.apply = doom.around(worker._rows.apply)  # type: ignore[method-assign]
    worker._acknowledge = doom.around(worker._acknowledge)  # type: ignore[method-assign]

    def work() -> bool:
        came = worker.step()
        return came.read + came.claimed > 0

    return work


def main() -> int:
    """Let one worker live as often as its job says; tell how often it died, or what it raised."""
    job: Job = json.loads(sys.stdin.buffer.readline())
    if not job["program"]:
        import_module("sqlalchemy.dialects.sqlite.pysqlite")  # once, and not in each life
    print("begun", flush=True)
    if "arguments" in job:  # one call, and no more
        runpy.run_path(job["program"])[job["name"]](*job["arguments"])
        return 0
    if not job["program"]:
        import_module("sqlalchemy.dialects.sqlite.pysqlite")  # once, and not in each life
    died = 0
    for left in [*job["deaths"], 0]:
        ended = _life(job, left)
        died += ended == -signal.SIGKILL
        if ended == 0:
            break
        if ended != -signal.SIGKILL:
            return 1
    print(json.dumps({"deaths": died}), flush=True)
    return 0


def _life(job: Job, left: int) -> int:
    """Return the exit status of a life, negative for the signal that ended it."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        live(job, left)
    except BaseException as error:
        text = traceback.format_exception_only(error)[-1].strip()
        print(json.dumps({"error": text}), flush=True)
        os._exit(1)
    os._exit(0)


def _is_over() -> bool:
    return bool(select.select([0], [], [], 0)[0])


if __name__ == "__main__":
    sys.exit(main())
