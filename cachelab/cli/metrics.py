"""python -m cachelab metrics: a server's numbers and those of its streams, for Prometheus."""

import argparse
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import cachelab as cl
from cachelab import _check
from cachelab._extras import need
from cachelab.cache.gate import place_of
from cachelab.clients import shards
from cachelab.clients.client import variables
from cachelab.errors import CachelabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

HELP = """
Show a server's INFO and its streams of writes to Prometheus, until Ctrl-C.

For who has no redis_exporter: cachelab_server_... has the numbers that
alerts need, with the meanings that redis_... has there, and of each stream
that --stream names how many writes wait, and since when. What a cache counts
is in its own process, which shows it by cachelab.metrics.register. A server
that does not answer is cachelab_server_up 0, half a second later.

examples:
  python -m cachelab metrics
  python -m cachelab metrics --port 9121 --stream orders --stream users
"""
ENVIRONMENT = ("redis",)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    option = parser.add_argument
    option("--port", type=int, default=9121, help="0 for a free one (default: %(default)s)")
    option("--host", default="127.0.0.1", help="what it listens on (default: %(default)s)")
    option(
        "--stream",
        action="append",
        default=[],
        metavar="NAME",
        help="show the writes that wait in a stream, too; may be given again",
    )


def run(args: argparse.Namespace) -> int:
    """Answer scrapes until told to stop."""
    if not variables():
        raise CachelabError(
            "metrics are those of a server that others use: set REDIS_URL. A private one, which a "
            "process without it gets, has nobody else's numbers"
        )
    need("python -m cachelab metrics", "metrics")
    from prometheus_client import CollectorRegistry

    from cachelab import metrics
    from cachelab.writes.stream import Stream

    client, registry = cl.connect(check=False), CollectorRegistry()
    name = "cluster" if shards.is_cluster(client) else place_of(client)
    metrics.register(client, name, registry)
    streams = [metrics.register(Stream(client, one), one, registry) for one in args.stream]
    with suppress(KeyboardInterrupt), shown(args.host, args.port, registry) as url:
        print(f"The metrics of {name}{' and its streams' * bool(streams)} are at {url}")
        threading.Event().wait()
    return 0


@contextmanager
def shown(host: str, port: int, registry: "CollectorRegistry") -> "Iterator[str]":
    """Answer scrapes in a thread of its own inside the block; yield where.

    Args:
        host: The address to listen on.
        port: Its port; 0 for a free one.
        registry: What is shown.

    Raises:
        CachelabError: Nothing can listen there.
    """
    from prometheus_client import start_http_server

    port = _check.whole("the port of metrics", port, least=0, most=65535)
    place = f"[{host}]" if ":" in host else host
    try:
        httpd, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise CachelabError(
            f"{place}:{port} is not free for metrics, or no address of this machine: choose "
            f"another port, or 0 for any that is free ({error})"
        ) from error
    with httpd:
        try:
            yield f"http://{place}:{httpd.server_port}/metrics"
        finally:
            httpd.shutdown()
            thread.join()
