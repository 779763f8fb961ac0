"""python -m cachelab worker: bring the writes of a stream to the database."""

import argparse
import os
from contextlib import ExitStack

import cachelab as cl
from cachelab._extras import need
from cachelab.cli.metrics import shown
from cachelab.clients.client import variables
from cachelab.errors import CachelabError

HELP = """
Bring the writes of a stream to the database, until Ctrl-C or SIGTERM.

Programs put writes into the stream with cachelab.writes.WriteBehind. Any
number of workers may run at once, on any machine: each write is applied once,
and what a worker leaves that is killed, another takes over. A batch that was
begun is ended before the worker ends.

examples:
  python -m cachelab worker --database sqlite:////var/lib/app/users.db
  python -m cachelab worker --name orders --batch 500 --cache-prefix cache:
  python -m cachelab worker --metrics-port 9122
"""
ENVIRONMENT = ("redis", "database")

TIMEOUT = 2.0  # seconds that a reply may take: a worker waits for messages for half of it at a time


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    option = parser.add_argument
    option("--name", default="writes", help="the name of the stream (default: %(default)s)")
    option("--database", metavar="URL", help="its URL, instead of CACHELAB_DATABASE_URL")
    option("--group", default="rows", help="the group that it works for (default: %(default)s)")
    option(
        "--batch",
        type=int,
        default=100,
        metavar="N",
        help="writes in a transaction at most (default: %(default)s)",
    )
    option(
        "--claim-after",
        type=float,
        default=10.0,
        metavar="S",
        help="take over from a worker that is silent for so long (default: %(default)g)",
    )
    option("--cache-prefix", metavar="P", help="tell the caches whose keys begin so")
    option("--metrics-port", type=int, metavar="N", help="show Prometheus what it has done")
    option("--metrics-host", default="127.0.0.1", help="and where (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Work until told to stop, and tell what became of the writes."""
    if not variables():
        raise CachelabError(
            "a worker needs the server that others write to: set REDIS_URL. A private one, which "
            "a process without it gets, holds no other program's writes"
        )
    if args.database is None and not os.environ.get("CACHELAB_DATABASE_URL"):
        raise CachelabError(
            "a worker needs the database that others read: --database URL or CACHELAB_DATABASE_URL"
        )
    from cachelab.writes import Worker

    client = cl.connect(timeout=TIMEOUT)
    with (
        cl.UserDatabase(args.database, latency=0, connections=1) as database,
        ExitStack() as stack,
    ):
        cache: cl.CacheAside[str] | None = None
        if args.cache_prefix is not None:
            cache = cl.CacheAside(client, load=database.get, ttl=3600, prefix=args.cache_prefix)
        worker = Worker(
            client,
            database,
            name=args.name,
            group=args.group,
            batch=args.batch,
            claim_after=args.claim_after,
            cache=cache,
        )
        print(f"{worker.consumer} brings the writes of {args.name!r} to {database.name}.")
        if args.metrics_port is not None:
            need("--metrics-port", "metrics")
            from prometheus_client import CollectorRegistry

            from cachelab import metrics

            registry = CollectorRegistry()
            metrics.register(worker, args.name, registry)
            place = args.metrics_host, args.metrics_port
            print(f"Its metrics are at {stack.enter_context(shown(*place, registry))}")
        done = worker.run()
    print(
        f"Ended: {done.applied:,} applied, {done.superseded:,} superseded, {done.repeated:,} had "
        f"been applied before, {done.aside:,} set aside; {done.claimed:,} were taken over."
    )
    return 0
