"""python -m cachelab demo: a small shop that shows what each of its pages costs."""

import argparse
from contextlib import ExitStack

import cachelab as cl
from cachelab._extras import need
from cachelab.clients.client import variables

HELP = """
Serve a small shop with a feed, which shows what each of its pages costs.

Each response tells hit or miss, its milliseconds, and the commands it sent;
its page Bench has switches that take the cache away, make the database slow
or kill Redis, and visitors on a button. Without REDIS_URL, which may be that
of Sentinels or a cluster, it starts a server of its own, without
CACHELAB_DATABASE_URL a private SQLite file. It has no passwords, and listens
on this machine only.

examples:
  python -m cachelab demo
  python -m cachelab demo --port 9000 --workers 2
"""
ENVIRONMENT = ("redis", "database")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    option = parser.add_argument
    option("--port", type=int, default=8868, help="of the page (default: %(default)s)")
    option("--host", default="127.0.0.1", help="to listen on (default: %(default)s)")
    option("--url", help="where browsers find it, if that is not http://127.0.0.1:PORT")
    option(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that serve it (default: %(default)s)",
    )
    option(
        "--latency",
        type=float,
        default=0.02,
        metavar="S",
        help="seconds that the database takes for an answer (default: %(default)g)",
    )
    option(
        "--slow",
        type=float,
        default=0.5,
        metavar="S",
        help="and when it is made slow (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve the demo until Ctrl-C."""
    need("The demo", "web")
    from cachelab import _check
    from cachelab.apps.web import serving
    from cachelab.apps.web.settings import Settings, is_loopback

    workers = _check.whole("--workers", args.workers, least=1, most=64)
    _check.whole("--port", args.port, least=1, most=65535)
    if not is_loopback(args.host) and not args.url:
        raise ValueError(
            f"--host {args.host} lets others than this machine in, who need no password here: say "
            "by --url https://name where a server that speaks TLS, and asks who it is, passes it on"
        )
    host = f"[{args.host}]" if ":" in args.host else args.host
    with ExitStack() as stack:
        place = stack.enter_context(serving.listening(args.host, args.port))
        server = None if variables() else stack.enter_context(cl.Server())
        database = stack.enter_context(cl.UserDatabase(latency=0, connections=1))
        settings = Settings(
            redis_url=server.url if server else cl.server_url(),
            database_url=database.url,
            url=args.url or f"http://{host}:{args.port}",
            has_server=server is not None,
            latency=args.latency,
            slow=args.slow,
        )
        if server is None:
            cl.connect()  # tells what is wrong with the server that was named
        stack.enter_context(serving.prepared(settings, server))
        print(f"{settings.url}\n\nCtrl-C ends it, and removes what is not kept elsewhere.")
        serving.run(settings, place, workers)
    print("\nThe demo has ended.")
    return 0
