"""A forked child of this process: it can be killed, and whatever happens in it happens there alone.

A cache is tried in one, so that a call that hangs, ends the process or changes it harms nobody. A
fork takes along what cannot be imported: a class from a notebook's cell.
"""

import gc
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Self

Say = Callable[[str], None]


class Child:
    """Run a function in a forked child, which ends with the block.

    The function gets ``say``, which sends a text to the parent. It runs in the child's main
    thread, where signals are handled.

    Args:
        work: The function.
    """

    def __init__(self, work: Callable[[Say], object]):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()  # or the child would write it once more
        self._heard, said = Pipe(duplex=False)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            self.pid = os.fork()  # the threads that Python warns of hold nothing that is used there
        if self.pid == 0:
            _work(work, said)
        said.close()
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def hear(self, seconds: float) -> str:
        """Return the next text that the child says.

        Raises:
            TimeoutError: It says nothing for so many seconds.
            EOFError: It has ended.
        """
        if not self._heard.poll(seconds):
            raise TimeoutError
        return self._heard.recv_bytes().decode()

    def kill(self) -> int:
        """Kill it, and what it has forked if it leads a group; return how it ended."""
        if self._status is None:
            for end in (os.killpg, os.kill):
                with suppress(ProcessLookupError):
                    end(self.pid, signal.SIGKILL)
            self._heard.close()
            self._status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(self._status)


def shift_clock(hours: int) -> None:
    """Have the clock of this process be wrong, as far as Python asks for it by `time`."""
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + 3600 * hours
    time.time_ns = lambda: right_ns() + 3600 * hours * 10**9


def _work(work: Callable[[Say], object], said: Connection) -> None:
    """Do the work of a child, and end it without what a process does at its end: not its own."""
    status = 1
    try:
        gc.freeze()  # what the parent has left to tidy up is the parent's
        work(lambda text: said.send_bytes(text.encode()))
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        status = 0
    finally:
        os._exit(status)
