"""python -m cachelab doctor: all that the lessons lean on, and the command that mends a part."""

import argparse
import os
import platform
import re
import shutil
import sqlite3
import textwrap
import timeit
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import redis
import redis.connection

import cachelab as cl
from cachelab import clients
from cachelab._extras import MODULES, MissingExtra, missing
from cachelab.cli.checkup import NAMES, checkup
from cachelab.clients.shards import is_cluster

if TYPE_CHECKING:
    from packaging.requirements import Requirement

HELP = """
Show what works, what does not, and the command that mends it.

Looks at Python, the packages, the server, what the lessons can do with it,
and the database. Of a server that is in use, which the environment names, it
says what is odd for a cache: it reads what the server has counted and looks at
a hundred keys, and changes nothing. Exit status 1 if a part that is needed
does not work.

example:
  python -m cachelab doctor
"""
ENVIRONMENT = ("redis", "database")
OPTIONAL = frozenset({"client-side caching", "INFO", "lab", "lessons", *NAMES})  # these stop nobody
PINGS = 100
LEAST = "7.0"  # of Redis: a lease is taken by SET with NX and GET, which older ones refuse

Row = tuple[str, str, str, str]  # part, state, detail, mend

_ROOT = Path(__file__).parents[2]
_COMPOSE = "docker compose up --build --wait  # brings Redis 8"
_DATABASE = "CACHELAB_DATABASE_URL"


def _install() -> str:
    """Return the command that installs what is missing, as it was installed here."""
    if os.environ.get("CACHELAB_IMAGE"):  # docker-compose.yml sets it; the clone's .venv is no part
        return "docker compose up --build --wait  # on the machine, outside the container"
    if (_ROOT / ".venv" / ".ready").exists():
        return "rm .venv/.ready; make setup"
    if (_ROOT / "requirements.txt").exists():
        return "pip install --require-hashes -r requirements.txt"
    return "pip install --upgrade 'cachelab[lab]'"


_INSTALL = _install()


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: it has none."""


def run(args: argparse.Namespace) -> int:
    """Print a table of the checks, and what is to be mended."""
    rows = checks()
    columns = max(shutil.get_terminal_size().columns, 60)
    width = max(len(row["part"]) for row in rows)
    indent = " " * (width + 11)
    for row in [{"part": "part", "state": "state", "detail": "detail", "mend": ""}, *rows]:
        head = f"{row['part']:<{width}}  {row['state']:<7}  "
        print(textwrap.fill(row["detail"], columns, initial_indent=head, subsequent_indent=indent))
        if row["mend"]:
            print(f"  mend: {row['mend']}")
    broken = [row["part"] for row in rows if row["state"] != "ok" and row["part"] not in OPTIONAL]
    print(f"\nTo mend: {', '.join(broken)}." if broken else "\nEverything that is needed works.")
    return int(bool(broken))


def checks() -> list[dict[str, str]]:
    """Look at each part; never raise.

    Starts the embedded server if that is the one in use; creates the database's table where it is
    missing. Shows neither passwords nor the embedded server's port.

    Returns:
        A row for each part with the keys part, state, detail and mend. The state is "ok",
        "missing", "old", "refused", "odd" or "away" (it does not answer), mend the command that
        helps, or "".
    """
    rows: list[Row] = []
    for look in (_packages, _server, _database):
        try:
            for row in look():
                rows.append(row)
        except Exception as error:  # the doctor reports, whatever it is that is broken
            rows.append(_failed(look.__name__.strip("_"), error))
    return [dict(zip(("part", "state", "detail", "mend"), row, strict=True)) for row in rows]


def _failed(part: str, error: Exception) -> Row:
    detail = _unspoken((str(error) or type(error).__name__).splitlines()[0])
    if isinstance(error, MissingExtra):
        return part, "missing", detail, "pip install 'cachelab[lab]'" if _core_alone() else _INSTALL
    if isinstance(error, ImportError) or isinstance(error.__context__, ImportError):
        return part, "missing", detail, _INSTALL
    if part == "database":
        return part, "away", detail, f"unset {_DATABASE}  # a private SQLite file is used"
    if named := _named():
        return part, "away", detail, f"unset {' '.join(named)}  # the embedded server is used"
    return part, "away", detail, _COMPOSE if os.name == "nt" else _INSTALL


def _unspoken(said: str) -> str:
    """Return an error's words without what the environment keeps secret: other libraries speak too.

    >>> _unspoken("cannot open redis://me:hunter2@host/0?password=hunter2")
    'cannot open redis://host/0'
    """
    for name in (*_named(), _DATABASE):
        if name.endswith(("URL", "PASSWORD")) and (secret := os.environ.get(name)):
            said = said.replace(secret, name)
    return re.sub(r"(?<=://)\S*@|\?\w+=\S*", "", said)


def _packages() -> Iterator[Row]:
    """Yield Python, then each package that is needed on this platform, as the metadata say."""
    project = metadata.metadata("cachelab")
    version = platform.python_version()
    least = project["Requires-Python"].rpartition(">=")[2]
    if tuple(map(int, version.split(".")[:2])) < tuple(map(int, least.split("."))):
        told = f"{version}; needed: {least} or newer"
        yield "Python", "old", told, "make setup PYTHON=python3.13"
    else:
        yield "Python", "ok", version, ""
    if _core_alone():
        yield "redis", "ok", metadata.version("redis"), ""
        told = "only the core is installed: client, seeder, cache; the lessons need the rest"
        yield "lab", "missing", told, "pip install 'cachelab[lab]'"
    else:
        for requirement in _requirements("lab").values():
            yield _package(requirement)
    if "Hiredis" in redis.connection.DefaultParser.__name__:
        yield "hiredis", "ok", f"{metadata.version('hiredis')}, reads the replies", ""
    else:
        yield "hiredis", "missing", "not in use: every reply takes longer to read", _INSTALL


def _core_alone() -> bool:
    return missing("lab") == list(MODULES["lab"])


def _requirements(extra: str) -> dict[str, "Requirement"]:
    """Return what the core and an extra need on this platform, by name."""
    from packaging.requirements import Requirement  # comes with the lab

    found: dict[str, Requirement] = {}
    for line in metadata.requires("cachelab") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "cachelab":
            for inner in sorted(requirement.extras):
                found |= _requirements(inner)
        else:
            found[requirement.name] = requirement
    return found


def _package(requirement: "Requirement") -> Row:
    name, needed = requirement.name, str(requirement.specifier)
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, "missing", f"needed: {name}{needed}", _INSTALL
    # A pre-release comes before its release; one of a later release is new enough.
    if requirement.specifier.contains(version, prereleases=True):
        return name, "ok", version, ""
    needed = re.sub(r"^>=([^,]+)$", r"\1 or newer", needed)
    return name, "old", f"{version}; needed: {needed}", _INSTALL


def _server() -> Iterator[Row]:
    """Yield the server, how far away it is, how much it holds, and what it is too old for."""
    url = clients.server_url()
    named = _named()
    link: Any = clients.connect(url)
    shape = _shape(link)
    place = f"{clients.address(url)}{shape} by {named[0]}" if named else "embedded"
    if is_cluster(link):  # one node speaks for all
        link = link.get_redis_connection(link.get_default_node())
    try:
        info: dict[str, Any] = link.info()
    except redis.ResponseError as error:
        yield "server", "ok", f"{place}, answers", ""
        yield _distance(link)
        told = (
            f"not allowed here ({_unspoken(str(error))}): version, memory and lessons are unknown"
        )
        yield "INFO", "refused", told, "ACL SETUSER <user> +info  # as who administers that server"
        return
    speaks = info.get("redis_version", "0")
    name = f"Redis {speaks}"
    if "valkey_version" in info:
        name = f"Valkey {info['valkey_version']} (as Redis {speaks})"
    if _older(speaks, LEAST):
        told = f"{name}, {place}; needed: Redis {LEAST} or newer, which can take a lease"
        way = f"unset {' '.join(named)}  # the embedded server is used; or {_COMPOSE}"
        yield "server", "old", told, way
    else:
        yield "server", "ok", f"{name}, {place}", ""
    yield _distance(link)
    limit = f"{info['maxmemory'] / 2**20:g} MB at most" if info.get("maxmemory") else "no limit"
    yield "memory", "ok", f"{limit}, {info.get('maxmemory_policy', 'policy unknown')}", ""
    least = redis.connection.CacheProxyConnection.MIN_ALLOWED_VERSION
    if _older(speaks, least):
        told = f"the server speaks Redis {speaks}; needed: {least} or newer"
        yield "client-side caching", "old", told, _COMPOSE
    else:
        yield "client-side caching", "ok", f"the server speaks Redis {speaks}", ""
    if named:
        yield from checkup(link, info)
    if shape:
        told = "written for one server: behind a slow link, asked for many keys at once"
        way = f"unset {' '.join(named)}  # the embedded server is used"
        yield "lessons", "refused", told, way
        return
    yield from _lessons(speaks)


def _shape(link: Any) -> str:
    """Return what there is of servers behind a URL that leads to several."""
    if is_cluster(link):
        primaries, replicas = len(link.get_primaries()), len(link.get_replicas())
        return f" (cluster of {primaries} primaries and {replicas} replicas)"
    sentinels = getattr(link.connection_pool, "sentinels", None)
    return " (primary at {}:{})".format(*sentinels.found) if sentinels else ""


def _distance(link: redis.Redis) -> Row:
    seconds = median(timeit.repeat(link.ping, number=1, repeat=PINGS))
    return "round trip", "ok", f"{1000 * seconds:.3f} ms, median of {PINGS} PINGs", ""


def _lessons(speaks: str) -> Iterator[Row]:
    """Yield which lessons a server of that version runs, and which in part, where there are any."""
    paths = sorted((_ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
    if not paths:
        return
    lessons = {path.name.partition("_")[0]: _needs(path) for path in paths}
    short = {number: needs for number, needs in lessons.items() if _older(speaks, needs)}
    whole = " ".join(number for number in lessons if number not in short) or "none"
    told = [f"{number} in part (needs Redis {needs})" for number, needs in short.items()]
    detail = ", ".join([f"this server runs {whole}", *told])
    yield "lessons", "old" if short else "ok", detail, _COMPOSE if short else ""


def _database() -> Iterator[Row]:
    """Yield the database; where only the core is installed there is none to look at."""
    if _core_alone():
        return
    with cl.UserDatabase(latency=0) as database:
        database.get("user-1")
    private = f"SQLite {sqlite3.sqlite_version}, private"
    named = os.environ.get(_DATABASE)
    yield "database", "ok", f"{database.name} by {_DATABASE}" if named else private, ""


def _older(found: str, least: str) -> bool:
    """Return whether a server's version is older than another.

    >>> _older("6.2.14", "7.0"), _older("7.0.15", "7.0"), _older("10.0", "9.9")
    (True, False, False)
    """
    one, other = (tuple(map(int, re.findall(r"\d+", version))) for version in (found, least))
    return one < other


def _needs(lesson: Path) -> str:
    """Return the Redis version below which a lesson skips something, as its metadata say."""
    text = lesson.read_text(encoding="utf-8")
    said = re.search(r'^\s*"redis": "([\d.]+)"', text, re.M)  # in a cell quotes are escaped
    return said[1] if said else "0"


def _named() -> list[str]:
    """Return the variables that are set of those that name the server."""
    names = (f"REDIS_{part}" for part in ("URL", "HOST", "PORT", "USERNAME", "PASSWORD"))
    return [name for name in names if os.environ.get(name)]
