"""An address that leads to one server and then to another, as after a fail-over."""

import socket
from contextlib import suppress
from threading import Thread
from typing import Self
from urllib.parse import urlsplit


class Detour:
    """Listen on a port of its own and pass bytes on to a server's.

    Connections stay with the server that they were made to; new ones go to ``port``.

    Args:
        url: The first server's, with its password.
    """

    def __init__(self, url: str):
        parts = urlsplit(url)
        self.port = parts.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        user, _, _ = parts.netloc.rpartition("@")
        here = f"{user}@127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = parts._replace(netloc=here.removeprefix("@")).geturl()

    def __enter__(self) -> Self:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self.port))
                Thread(target=_pass_on, args=(near, far), daemon=True).start()
                Thread(target=_pass_on, args=(far, near), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
