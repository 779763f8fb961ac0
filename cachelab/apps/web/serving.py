"""Running the demo: its database and its server made ready, then uvicorn, here or as workers."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from redis import RedisError

from cachelab.apps.web import origin
from cachelab.apps.web.board import EVERY, Board
from cachelab.apps.web.settings import VARIABLE, Settings
from cachelab.clients import connect
from cachelab.errors import ServerError

BACKLOG = 2048
ENDED_WITHIN = 10  # seconds that it waits, told to end, for answers that are under way

log = logging.getLogger("cachelab")

if TYPE_CHECKING:
    from types import FrameType

    from uvicorn import Config

    from cachelab.server.server import Server


@contextmanager
def prepared(settings: Settings, server: "Server | None" = None) -> Iterator[None]:
    """Make and fill the tables, set the switches as they are at first, and heed that of a server.

    Args:
        settings: What the demo is told.
        server: The Redis server that was started for it, to be killed and started again.
    """
    origin.fill(settings.database_url)
    board = Board(settings.database_url)
    board.reset()
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(server, board, over))
    if server is not None:
        keeper.start()
    try:
        yield
    finally:
        over.set()
        if server is not None:
            keeper.join()
        board.close()


def config(app: Any, settings: Settings, **options: Any) -> "Config":
    """Return how uvicorn is to serve it: its own headers tell nothing, and proxies are believed
    only where there must be one."""
    from uvicorn import Config

    quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    quiet["timeout_graceful_shutdown"] = ENDED_WITHIN
    return Config(app, proxy_headers=settings.is_https, **(quiet | options))


@contextmanager
def serving(settings: Settings, server: "Server | None" = None) -> Iterator[str]:
    """Serve the demo from a thread of this process; yield where.

    Args:
        settings: What the demo is told; the port of its URL does not count.
        server: The Redis server that was started for it.
    """
    from uvicorn import Server as Uvicorn

    from cachelab.apps.web.application import make_application

    with prepared(settings, server):
        uvicorn = Uvicorn(config(make_application(settings), settings))
        place = listening("127.0.0.1", 0)
        thread = threading.Thread(target=uvicorn.run, args=([place],))
        thread.start()
        try:
            while not uvicorn.started:
                thread.join(0.01)
                if not thread.is_alive():
                    raise RuntimeError("the demo has not started: its log says why")
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            uvicorn.should_exit = True
            thread.join()
            place.close()


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises OSError where it cannot, as where the port is taken.

    It says that it is TCP's, which `socket.create_server` does not: asyncio has the kernel send at
    once only what does. Else it keeps a body back for 40 ms, until the headers are acknowledged.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise OSError(f"{host}, port {port}, is not to be had: {error.strerror}") from None
    made.set_inheritable(True)
    return made


def run(settings: Settings, place: socket.socket, workers: int) -> None:
    """Serve the demo until Ctrl-C or SIGTERM.

    Args:
        settings: What it is told; its tables are `prepared`.
        place: Where it is `listening`.
        workers: Processes; with one it is this one.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from cachelab.apps.web import application

    class Once(uvicorn.Server):
        """A server that ends in order, however often it is told to."""

        def handle_exit(self, sig: int, frame: "FrameType | None") -> None:
            if not self.should_exit:
                super().handle_exit(sig, frame)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):  # uvicorn passes on what ended it
        if workers == 1:
            where = config(application.make_application(settings), settings)
            Once(where).run(sockets=[place])
        else:
            os.environ[VARIABLE] = settings.text()
            factory = f"{application.__name__}:{application.from_environment.__name__}"
            where = config(factory, settings, factory=True, workers=workers)
            Multiprocess(where, sockets=[place]).run()


def _keep(server: "Server", board: Board, over: threading.Event) -> None:
    """Kill the server, and start it again, as the switch says; it may have died by itself."""
    from sqlalchemy.exc import SQLAlchemyError

    heeded = 0.0
    while not over.wait(EVERY / 2):
        try:
            switches = board.switches()
            if switches.redis_since == heeded:
                continue
            if not switches.redis:
                server.kill()
            elif not _answers(server):
                server.restart()
            heeded = switches.redis_since
        except (SQLAlchemyError, ServerError) as error:
            log.error("the demo's server is not as it was switched: %s", type(error).__name__)


def _answers(server: "Server") -> bool:
    with suppress(RedisError, OSError):
        return bool(connect(server.url, check=False).ping())
    return False
