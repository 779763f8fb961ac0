"""The command line: python -m cachelab doctor | serve | ask | seed | charts."""

import argparse
import inspect
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cachelab as cl
from cachelab import _check
from cachelab.prompt import ask

_REDIS = """
  REDIS_URL              the server to use, redis://user:password@host:port/0,
                         or in parts: REDIS_HOST, REDIS_PORT, REDIS_USERNAME,
                         REDIS_PASSWORD; without them a private one is started"""
_DATABASE = """
  CACHELAB_DATABASE_URL  the database, postgresql://user:password@host/name;
                         without it a private SQLite file"""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit status: 2 after an error, which is told in one line."""
    parser = _parser()
    args = parser.parse_args(argv)
    sys.stdout.reconfigure(line_buffering=True)  # whoever reads along through a pipe sees each line at once
    if not args.command:
        parser.print_help()
        return 0
    try:
        return args.run(args)
    except KeyboardInterrupt as stop:
        print("\n" + " ".join(getattr(stop, "__notes__", ["Interrupted."])), file=sys.stderr)
        return 130
    except (cl.CachelabError, ValueError) as error:
        print(f"{parser.prog} {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def doctor(args: argparse.Namespace) -> int:
    """Show what works, what does not, and the command that mends it.

    Looks at Python, the packages, the server, what the lessons can do with it,
    and the database. Exit status 1 if a part that is needed does not work.

    example:
      python -m cachelab doctor
    """
    from cachelab.doctor import OPTIONAL, checks

    rows, columns = checks(), shutil.get_terminal_size().columns
    width = max(len(row["part"]) for row in rows)
    indent = " " * (width + 11)
    for row in [{"part": "part", "state": "state", "detail": "detail", "mend": ""}, *rows]:
        head = f"{row['part']:<{width}}  {row['state']:<7}  "
        print(textwrap.fill(row["detail"], max(columns, 60), initial_indent=head, subsequent_indent=indent))
        if row["mend"]:
            print(f"  mend: {row['mend']}")
    broken = [row["part"] for row in rows if row["state"] != "ok" and row["part"] not in OPTIONAL]
    print(f"\nTo mend: {', '.join(broken)}." if broken else "\nEverything that is needed works.")
    return int(bool(broken))


def serve(args: argparse.Namespace) -> int:
    """Keep a private server running until Ctrl-C, for other terminals to use.

    Prints its URL as a line to paste into another terminal: what is started
    there, notebooks too, shares this server. The line holds the password, which
    is shown nowhere else. The server is a new one, whatever REDIS_URL says; it
    listens on this machine only and leaves nothing behind.

    examples:
      python -m cachelab serve
      python -m cachelab serve --maxmemory 4mb --policy allkeys-lru
    """
    with suppress(KeyboardInterrupt), cl.Server(maxmemory=args.maxmemory, maxmemory_policy=args.policy) as server:
        print(
            f"export REDIS_URL={server.url}\n\n"
            "Paste this line, password and all, into another terminal. What you start there\n"
            f"shares this server ({args.maxmemory}, {args.policy}):\n\n"
            "    python -m cachelab ask\n    make lab\n\n"
            "Ctrl-C ends the server and all that it holds."
        )
        while True:
            time.sleep(1)
            server.thaw()  # raises ServerError should another program have ended it
    print("\nThe server has ended.")
    return 0


def seed(args: argparse.Namespace) -> int:
    """Write generated users to Redis, and say how fast that went.

    The methods: one_by_one waits for each user, threads has up to 50 under way,
    pipeline sends a batch before it waits, bulk packs a batch as one command.
    Without --ttl the keys never expire; a private server ends with the command,
    and they with it (`python -m cachelab serve` keeps one running).

    examples:
      python -m cachelab seed
      python -m cachelab seed --count 100000 --method bulk --batch-size 1000
    """
    options = {name: getattr(args, name) for name in ("count", "batch_size", "method", "prefix", "ttl", "seed")}
    report = cl.seed(cl.connect(), progress=sys.stderr.isatty(), **options)
    print(
        f"{report.written:,} users in {report.seconds:.3f} s: {report.rate:,.0f} a second, "
        f"{report.round_trips:,} round trips ({report.method})."
    )
    if report.written:
        end = "never expire" if args.ttl is None else f"expire after {args.ttl:g} s"
        print(f"Keys {args.prefix}user-1 to user-{report.written} {end}.")
    return 0


def charts(args: argparse.Namespace) -> int:
    """Run the notebooks, one after the other, and draw their charts.

    Everything is measured on this machine, now. Quick charts go to
    charts/local/, which git ignores, those of full scale to charts/: each as
    SVG, PNG and CSV. Exit status 1 if a notebook failed.

    --redraw runs nothing: it draws the figures of a folder again from the data
    beside them. Exit status 1 if a file is not what it was: the picture that
    stood there was not that of its data.

    --compare lays the figures of another machine over those of charts/, or of
    a second folder, in charts/local/compare/, and lists the findings in which
    the two differ: ratios, shares and counts, never times.

    examples:
      python -m cachelab charts
      python -m cachelab charts --scale full --only 01 05
      python -m cachelab charts --redraw
      python -m cachelab charts --redraw charts/local
      python -m cachelab charts --compare charts/local
      python -m cachelab charts --compare ../theirs/charts charts/local
    """
    from cachelab.lab import notebooks

    kept = Path(os.path.relpath(notebooks.SCALES["full"]))
    if (args.redraw or args.compare) and (args.only or args.write):
        raise ValueError(f"--{'redraw' if args.redraw else 'compare'} runs no notebook: leave out --only and --write")
    if args.redraw and args.compare:
        raise ValueError("--redraw and --compare are two commands: leave out one")
    if args.redraw:
        return _redraw(kept if args.redraw is True else args.redraw)
    if args.compare:
        if len(args.compare) > 2:
            raise ValueError(f"--compare lays one folder over another, not {len(args.compare)} at once")
        other, folder = (*args.compare, kept)[:2]
        return _compare(folder, other, Path(os.path.relpath(notebooks.SCALES["quick"] / "compare")))
    found = {path.name[:2]: path for path in notebooks.found()}
    only = [_check.choice("only", number, tuple(found)) for number in args.only or found]
    return int(bool(notebooks.run_all([found[number] for number in only], args.scale, write_outputs=args.write)))


def _redraw(folder: Path) -> int:
    from cachelab.lab import charts

    before = {file: file.read_bytes() for end in ("svg", "png") for file in folder.glob(f"*.{end}")}
    drawn = charts.redraw(folder)
    files = sorted(file for svg in drawn for file in (svg, svg.with_suffix(".png")))
    changed = [file.name for file in files if file.read_bytes() != before.get(file)]
    named = f": {', '.join(changed)}" if changed else ""
    print(f"Figures drawn again: {len(drawn)}. Files changed: {len(changed)}{named}.")
    return int(bool(changed))


def _compare(first: Path, second: Path, into: Path) -> int:
    from cachelab.lab import findings, overlay

    drawn = overlay.overlay(first, second, into)
    for old in [file for file in into.glob("*.*") if not drawn.get(file.stem)]:
        old.unlink()  # of another pair of folders, and taken for one of these
    print(findings.told(findings.compare(first, second)))
    print(f"Figures of both: {sum(map(bool, drawn.values()))}, each as SVG and PNG in {into}")
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser: a subcommand's help is its function's docstring and the environment that it heeds."""
    parser = argparse.ArgumentParser(
        prog="python -m cachelab",
        description="Look after the lab, and play with it, from a terminal.",
        epilog="Each command has its own --help: what it does, examples, environment variables.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(run: Callable[[argparse.Namespace], int], environment: str) -> Callable[..., argparse.Action]:
        told, raw = inspect.cleandoc(run.__doc__), argparse.RawDescriptionHelpFormatter
        told += f"\n\nenvironment:{environment}" if environment else ""
        line = told.partition(".\n")[0]
        command = commands.add_parser(run.__name__, help=line, description=told, formatter_class=raw)
        command.set_defaults(run=run)
        return command.add_argument

    add(doctor, _REDIS + _DATABASE)

    option = add(serve, "")
    option("--maxmemory", default="256mb", metavar="SIZE", help="what it may hold (default: %(default)s)")
    option("--policy", default="noeviction", help="what it drops when full, e.g. allkeys-lru (default: %(default)s)")

    option = add(ask, _REDIS + _DATABASE)
    option("--async", dest="awaited", action="store_true", help="await the cache and the database")
    option("--users", type=int, default=1000, metavar="N", help="users in the database (default: %(default)s)")
    option("--latency", type=float, default=2.0, metavar="S", help="seconds it takes to answer (default: %(default)s)")
    option("--warm", type=int, default=500, metavar="N", help="of them in the cache at first (default: %(default)s)")
    option(
        "--ttl", type=float, default=60, metavar="S", help="seconds that the cache keeps a user (default: %(default)s)"
    )

    option = add(seed, _REDIS)
    option("--count", type=int, default=1000, metavar="N", help="users to write (default: %(default)s)")
    option("--method", default="pipeline", help="one_by_one, threads, pipeline or bulk (default: %(default)s)")
    option("--batch-size", type=int, default=100, metavar="N", help="users in a batch (default: %(default)s)")
    option("--ttl", type=float, metavar="S", help="seconds until the keys expire (default: never)")
    option("--prefix", default="cachelab:seed:", help="what the keys begin with (default: %(default)s)")
    option("--seed", type=int, metavar="N", help="the same values each time (default: new ones)")

    option = add(charts, _REDIS + _DATABASE)
    option("--scale", choices=("quick", "full"), default="quick", help="how much to measure (default: %(default)s)")
    option("--only", nargs="+", metavar="NN", help="the numbers of the notebooks to run (default: all)")
    option("--write", action="store_true", help="save the outputs into the notebooks, as before a commit")
    option(
        "--redraw", nargs="?", type=Path, const=True, metavar="FOLDER",
        help="draw the figures of FOLDER (default: charts) again from their data",
    )  # fmt: skip
    option(
        "--compare", nargs="+", type=Path, metavar=("OTHER", "FOLDER"),
        help="lay the figures of OTHER over those of FOLDER (default: charts)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows has no SIGHUP
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it, and is to be heeded
            signal.signal(number, signal.default_int_handler)  # what ends a command leaves as little behind as Ctrl-C
    raise SystemExit(main())
