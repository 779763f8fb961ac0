"""Other doors to a server that speaks plain TCP, TLS and Unix sockets; ports that misbehave."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit


def certificate(folder: Path) -> Path:
    """Make a certificate for localhost that signs itself, with its key in the same file."""
    place = folder / "server.pem"
    words = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(place), "-out", str(folder / "cert.pem")]
    command = ["openssl", *words.split(), *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    place.write_text(place.read_text() + (folder / "cert.pem").read_text())
    return place


@contextlib.contextmanager
def door(url: str, scheme: str, folder: Path) -> Iterator[str]:
    """Yield a URL of another scheme that leads to the same server, by a relay in a thread."""
    parts = urlsplit(url)
    if scheme == "redis":
        yield url
        return
    login = parts.netloc.rpartition("@")[0]
    loop = asyncio.new_event_loop()
    path = folder / "redis.sock"

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(2**16):
                    writer.write(data)
                    await writer.drain()
                writer.close()
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    async def listen() -> asyncio.Server:
        if scheme == "unix":
            return await asyncio.start_unix_server(relay, path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(folder))
        return await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0.05)  # for what TLS says at its end

    server = loop.run_until_complete(listen())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    port = server.sockets[0].getsockname()[1] if scheme == "rediss" else 0
    try:
        if scheme == "unix":
            yield f"unix://{login}@{path}"
        else:
            yield f"rediss://{login}@localhost:{port}/0?ssl_ca_certs={folder / 'cert.pem'}"
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(9)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def listener(behave: Callable[[socket.socket], object], login: str = "") -> Iterator[str]:
    """A port whose every connection is handed to ``behave``; yields its redis:// URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as port:

        def serve(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):
                behave(peer)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(port.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"redis://{login}127.0.0.1:{port.getsockname()[1]}"
        finally:
            port.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def dead_places(count: int) -> Iterator[list[tuple]]:
    """Yield addresses, as socket.getaddrinfo does, at which nobody answers: queues are full."""
    with contextlib.ExitStack() as stack:
        places = []
        for _ in range(count):
            port = stack.enter_context(socket.socket())
            port.bind(("127.0.0.1", 0))
            port.listen(0)
            for _ in range(3):
                caller = stack.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(port.getsockname())
            places.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", port.getsockname()))
        yield places
