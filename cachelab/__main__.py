"""The command line: python -m cachelab doctor | serve | ask | seed | charts."""

import argparse
import asyncio
import inspect
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

import cachelab as cl
from cachelab import _check

ASK = "cachelab:ask:"  # what the keys of the prompt begin with


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit status: 2 after an error, which is told in one line."""
    parser = _parser()
    args = parser.parse_args(argv)
    sys.stdout.reconfigure(line_buffering=True)  # whoever reads along through a pipe sees each line at once
    try:
        return args.run(args) if "run" in args else parser.print_help() or 0
    except KeyboardInterrupt as stop:
        print("\n" + " ".join(getattr(stop, "__notes__", ["Interrupted."])), file=sys.stderr)
        return 130
    except (cl.CachelabError, ValueError) as error:
        print(f"{parser.prog} {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def doctor(args: argparse.Namespace) -> int:
    """Show what works, what does not, and the command that mends it.

    Looks at Python, the packages, the server, the lessons it can run, and the
    database. Exit status 1 if a part that is needed does not work.

    example:
      python -m cachelab doctor
    """
    from cachelab.doctor import OPTIONAL, checks

    rows = checks()
    width, indent = max(len(row["part"]) for row in rows), 0
    for row in [{"part": "part", "state": "state", "detail": "detail", "mend": ""}, *rows]:
        head = f"{row['part']:<{width}}  {row['state']:<7}  "
        indent = " " * len(head)
        columns = max(shutil.get_terminal_size().columns, 60)
        print(textwrap.fill(row["detail"], columns, initial_indent=head, subsequent_indent=indent))
        if row["mend"]:
            print(f"{indent}mend: {row['mend']}")
    broken = [row["part"] for row in rows if row["state"] != "ok" and row["part"] not in OPTIONAL]
    print(f"\nTo mend: {', '.join(broken)}." if broken else "\nEverything that is needed works.")
    return int(bool(broken))


def serve(args: argparse.Namespace) -> int:
    """Keep a private server running until Ctrl-C, for other terminals to use.

    Prints its URL as a line to paste into another terminal; what is started
    there, a notebook too, then shares this server. The password stands in that
    line, and nowhere else. The server listens on this machine only and leaves
    nothing behind. It is always a new one, whatever REDIS_URL says.

    example:
      python -m cachelab serve --maxmemory 4mb --policy allkeys-lru
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), cl.Server(maxmemory=args.maxmemory, maxmemory_policy=args.policy) as server:
        print(
            f"export REDIS_URL={server.url}\n\n"
            "Paste that line, password and all, into another terminal. Commands and notebooks\n"
            f"started there share this server ({args.maxmemory}, {args.policy}):\n\n"
            "    python -m cachelab ask\n"
            "    make lab\n\n"
            "Ctrl-C ends the server and all that it holds."
        )
        while True:
            time.sleep(1)
            server.thaw()  # raises ServerError should somebody have ended the server
    print("\nThe server has ended.")
    return 0


def ask(args: argparse.Namespace) -> int:
    """Ask a slow database for users, through the cache, one id after another.

    Fills the database with users, warms the cache with some of them, then
    prompts: type a user id, see the value, hit or miss, and how long it took.
    A user who was not in the cache is a miss once, and then a hit. With --async
    the same is awaited, and input() waits in a thread, off the event loop.
    Ctrl-D or Ctrl-C ends it and removes its keys (cachelab:ask:...).

    examples:
      python -m cachelab ask
      python -m cachelab ask --async --latency 0.5 --ttl 10
      echo user-1 | python -m cachelab ask
    """
    from tqdm import tqdm

    sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text are told of, as any bad id is
    warm = args.users // 2 if args.warm is None else min(_check.whole("--warm", args.warm, least=0), args.users)
    client, options = cl.connect(), {"ttl": args.ttl, "prefix": ASK}
    with cl.UserDatabase(latency=args.latency) as db:
        cache = users = cl.CacheAside(client, db.get, **options)
        asked = {f"user-{number}" for number in range(1, warm + 1)}
    return 0
