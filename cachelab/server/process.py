"""A program that lives no longer than the process that started it: the owner's side of the guard.

The other side is ``cachelab.server.guard``, which is the program's parent and takes orders.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from secrets import token_urlsafe
from typing import IO

from cachelab._secret import Secret
from cachelab.errors import ServerError

ENDS_WITHIN = 10.0  # seconds; a guard that takes longer is killed


class GuardedProcess:
    """A guard with a directory of its own, which runs ``command`` when it is told to.

    The guard, what it runs and the directory go with ``end()``, when the object is no longer
    referenced, and with this process, however that ends.
    """

    def __init__(self, command: list[str]) -> None:
        self.directory = os.path.join(tempfile.gettempdir(), f"cachelab-{token_urlsafe(12)}")
        self.owner = os.getpid()
        self._tags = itertools.count()
        self._lock = threading.Lock()
        script = str(Path(__file__).with_name("guard.py"))
        with forking:
            self.guard = subprocess.Popen(
                [sys.executable, "-I", "-S", script, self.directory, str(self.owner), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
            )
            _guards.add(self.guard)
            self._end = weakref.finalize(self, _end, self.guard, self.directory, self.owner)

    def write(self, name: str, lines: list[str]) -> None:
        """Write a file of the program's, which nobody else may read, into its directory."""
        self.runs()  # the guard has made the directory when it answers
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(f"{line}\n" for line in lines)

    def start(self, config: list[str]) -> int:
        """Start the program, with ``config`` on its standard input, and return its process id.

        One that runs is killed first.
        """
        return self._order(Secret("start " + "\t".join([*config, ""])))

    def signal(self, number: int) -> int:
        """Send the program a signal; return its process id, 0 when it does not run."""
        return self._order(str(int(number)))

    def runs(self) -> bool:
        """Return whether the program runs."""
        return bool(self._order("0"))

    def log(self) -> str:
        """Return what the program has written."""
        return Path(self.directory, "log").read_text(errors="replace")

    def end(self) -> None:
        """End the program and its guard; in a forked child do nothing: they are its parent's."""
        if self.owner == os.getpid():
            self._end()

    def _order(self, order: str) -> int:
        """Send the guard an order and return the pid that it answers: 0 when nothing runs."""
        if self.owner != os.getpid():
            owner = f"The server belongs to process {self.owner}"
            raise ServerError(f"{owner}: only that one can signal or restart it.")
        orders, answers = _pipes(self.guard)
        with self._lock:
            # The tag tells this reply from one that an interrupt left unread.
            tag = b"%d " % next(self._tags)
            try:
                orders.write(tag + order.encode() + b"\n")
            except BrokenPipeError:
                pass  # the guard is gone; what it said last is still to be read
            last = b""
            while reply := answers.readline():
                if reply.startswith(tag):
                    return int(reply.split()[1])
                last = reply
        said = last.decode(errors="replace").strip() or "it was killed"
        gone = f"The process that guards the server is gone ({said})"
        raise ServerError(f"{gone}: call stop(), then start().")


def _pipes(guard: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert guard.stdin and guard.stdout  # noqa: S101 - both were asked for
    return guard.stdin, guard.stdout


def _end(guard: subprocess.Popen[bytes], directory: str, owner: int) -> None:
    """End the guard, what it runs and its directory; only in the process that started them."""
    if os.getpid() != owner:
        return
    with forking:
        _guards.discard(guard)
    orders, answers = _pipes(guard)
    try:
        orders.write(b"0 end\n")  # said aloud: a child forked in C may hold the pipe open
    except OSError:
        pass  # it has ended by itself
    orders.close()
    try:
        guard.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
    answers.close()
    shutil.rmtree(directory, ignore_errors=True)  # nothing to do unless the guard was killed


def _forget_guards() -> None:
    """Let go of the parent's guards in a forked child: it has no say in them."""
    forking.release()
    for guard in _guards:
        for pipe in _pipes(guard):
            pipe.close()
        guard.returncode = 0  # not this process's child: nothing to wait for
    _guards.clear()


_guards: set[subprocess.Popen[bytes]] = set()
forking = threading.RLock()  # held while a child that was forked would inherit half a start
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=forking.acquire, after_in_parent=forking.release, after_in_child=_forget_guards
    )
