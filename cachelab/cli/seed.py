"""python -m cachelab seed: users for a server, and how fast they went there."""

import argparse
import sys
from importlib.util import find_spec

import cachelab as cl

HELP = """
Write generated users to Redis, and say how fast that went.

The methods: one_by_one waits for each user, threads has up to 50 under way,
pipeline sends a batch before it waits, bulk packs a batch as one command.
Without --ttl the keys never expire; a private server ends with the command,
and they with it (`python -m cachelab serve` keeps one running).

examples:
  python -m cachelab seed
  python -m cachelab seed --count 100000 --method bulk --batch-size 1000
"""
ENVIRONMENT = ("redis",)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    option = parser.add_argument
    option(
        "--count",
        type=int,
        default=1000,
        metavar="N",
        help="users to write (default: %(default)s)",
    )
    option(
        "--method",
        default="pipeline",
        help="one_by_one, threads, pipeline or bulk (default: %(default)s)",
    )
    option(
        "--batch-size",
        type=int,
        default=100,
        metavar="N",
        help="users in a batch (default: %(default)s)",
    )
    option("--ttl", type=float, metavar="S", help="seconds until the keys expire (default: never)")
    option(
        "--prefix",
        default="cachelab:seed:",
        help="what the keys begin with (default: %(default)s)",
    )
    option("--seed", type=int, metavar="N", help="the same values each time (default: new ones)")


def run(args: argparse.Namespace) -> int:
    """Write users, and tell rate and round trips."""
    report = cl.seed(
        cl.connect(),
        count=args.count,
        batch_size=args.batch_size,
        method=args.method,
        prefix=args.prefix,
        ttl=args.ttl,
        seed=args.seed,
        progress=sys.stderr.isatty() and find_spec("tqdm") is not None,
    )
    print(
        f"{report.written:,} users in {report.seconds:.3f} s: {report.rate:,.0f} a second, "
        f"{report.round_trips:,} round trips ({report.method})."
    )
    if report.written:
        end = "never expire" if args.ttl is None else f"expire after {args.ttl:g} s"
        print(f"Keys {args.prefix}user-1 to user-{report.written} {end}.")
    return 0
