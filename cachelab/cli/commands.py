"""python -m cachelab: the commands by name, and what each of them may expect of its surroundings.

A command is a module with HELP (text, as docstrings are gone under -OO), ENVIRONMENT, options() and
run(), which returns the exit status.
"""

import argparse
import sys
from functools import partial
from importlib import metadata

import cachelab as cl
from cachelab._limits import raise_open_files
from cachelab._streams import run_command, tell
from cachelab.cli import charts, demo, doctor, lab, metrics, prompt, seed, serve, teach, worker

COMMANDS = {
    "lab": lab,
    "doctor": doctor,
    "serve": serve,
    "ask": prompt,
    "seed": seed,
    "worker": worker,
    "demo": demo,
    "metrics": metrics,
    "charts": charts,
    "teach": teach,
}
PASS_ON = {"lab"}  # arguments that they do not know, which become args.rest
PROGRAM = "python -m cachelab"

_VARIABLES = {
    "redis": """
  REDIS_URL              the server to use, redis://user:password@host:port/0,
                         or in parts: REDIS_HOST, REDIS_PORT, REDIS_USERNAME,
                         REDIS_PASSWORD; without them a private one is started;
                         of a cluster redis-cluster://user:password@host:port,
                         of Sentinels redis-sentinel://...@host:port/service""",
    "database": """
  CACHELAB_DATABASE_URL  the database, postgresql://user:password@host/name;
                         without it a private SQLite file""",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status: 2 after an error, which is told in one line."""
    raise_open_files()
    return run_command(PROGRAM, partial(_run, argv))


def _run(argv: list[str] | None) -> int:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in PASS_ON:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    if not args.command:
        parser.print_help()
        return 0
    try:
        return int(COMMANDS[args.command].run(args))
    except KeyboardInterrupt as stop:
        print("\n" + " ".join(getattr(stop, "__notes__", ["Interrupted."])), file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except (cl.CachelabError, ValueError, OSError) as error:
        return tell(f"{PROGRAM} {args.command}", error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Look after the lab, and play with it, from a terminal.",
        epilog="Each command has its own --help: what it does, examples, environment variables.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        told = command.HELP.strip()
        heeds = "".join(_VARIABLES[variable] for variable in command.ENVIRONMENT)
        command.options(
            commands.add_parser(
                name,
                help=told.partition(".\n")[0],
                description=f"{told}\n\nenvironment:{heeds}" if heeds else told,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


def _version() -> str:
    try:
        found = metadata.version("cachelab")
    except metadata.PackageNotFoundError:
        found = "(not installed)"
    return f"cachelab {found}, Python {sys.version.split()[0]}"
