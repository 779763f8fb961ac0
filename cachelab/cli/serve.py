"""python -m cachelab serve: a private server for other terminals."""

import argparse
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path

import cachelab as cl

HELP = """
Keep a private server running until Ctrl-C, for other terminals to use.

Prints its URL as a line to paste into another terminal: what is started
there, notebooks too, shares this server. The line holds the password, which
is shown nowhere else. The server is a new one, whatever REDIS_URL says; it
listens on this machine only and leaves nothing behind. With --cluster it is
three primaries with a replica each, with --sentinel a primary, two replicas
and three Sentinels: what a program needs to change for these is its URL.

examples:
  python -m cachelab serve
  python -m cachelab serve --maxmemory 4mb --policy allkeys-lru
  python -m cachelab serve --cluster
"""
ENVIRONMENT = ()


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--maxmemory",
        default="256mb",
        metavar="SIZE",
        help="what it, or each node, may hold (default: %(default)s)",
    )
    parser.add_argument(
        "--policy",
        default="noeviction",
        help="what it drops when full, e.g. allkeys-lru (default: %(default)s)",
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--cluster", action="store_true", help="keep a cluster of six nodes")
    kinds.add_argument("--sentinel", action="store_true", help="keep a primary under Sentinels")


def run(args: argparse.Namespace) -> int:
    """Keep a private server running until Ctrl-C."""
    kind = cl.Cluster if args.cluster else cl.Sentinel if args.sentinel else cl.Server
    name = "cluster" if args.cluster else "set" if args.sentinel else "server"
    lessons = f"    {_lab()}\n" if kind is cl.Server else ""  # they want one server
    with (
        suppress(KeyboardInterrupt),
        kind(maxmemory=args.maxmemory, maxmemory_policy=args.policy) as server,
    ):
        print(
            f"export REDIS_URL={server.url}\n\n"
            "Paste this line, password and all, into another terminal. What you start there\n"
            f"shares this {name} ({args.maxmemory}, {args.policy}):\n\n"
            f"    {_python()} -m cachelab ask\n{lessons}\n"
            f"Ctrl-C ends the {name} and all that it holds."
        )
        nodes = [server] if isinstance(server, cl.Server) else server.nodes
        while True:
            time.sleep(1)
            for node in nodes:
                node.thaw()  # raises ServerError should another program have ended it
    print(f"\nThe {name} has ended.")
    return 0


def _python() -> str:
    """Return the interpreter that runs this, as a shell of any folder takes it."""
    return shlex.quote(sys.executable or "python")


def _lab() -> str:
    """Return what opens the notebooks: make, where they are."""
    root = Path(__file__).parents[2]
    if not (root / "Makefile").exists():
        return f"{_python()} -m jupyterlab"
    return "make lab" if os.getcwd() == str(root) else f"make -C {shlex.quote(str(root))} lab"
