"""Look at everything that the lessons lean on: what works, what does not, and the command that mends it."""

import os
import platform
import re
import sqlite3
import timeit
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from statistics import median

import redis.connection

from cachelab import client
from cachelab.database import UserDatabase

OPTIONAL = frozenset({"client-side caching", "lessons"})  # nobody is stopped by these
PINGS = 100

Row = tuple[str, str, str, str]  # part, state, detail, mend

_ROOT = Path(__file__).parents[1]
_ours = (_ROOT / ".venv" / ".ready").exists()
_INSTALL = "rm .venv/.ready; make setup" if _ours else "pip install --require-hashes -r requirements.txt"
_COMPOSE = "docker compose up --build --wait  # brings Redis 8"


def checks() -> list[dict[str, str]]:
    """Return a row for each part with the keys part, state, detail and mend; never raise.

    state: "ok", "missing", "old" or "away" (it does not answer). mend: the command that helps, or "".
    Starts the embedded server if that is the one in use; creates the database's table where it is missing. Shows neither
    passwords nor the embedded server's port.
    """
    rows: list[Row] = []
    private = f"unset {' '.join(_named())}  # the embedded server is used" if _named() else _INSTALL
    looks = {_packages: _INSTALL, _server: _COMPOSE if os.name == "nt" and not _named() else private}
    looks[_database] = "unset CACHELAB_DATABASE_URL  # a private SQLite file is used"
    for look, mend in looks.items():
        try:
            for row in look():
                rows.append(row)
        except Exception as error:  # the doctor reports, whatever it is that is broken
            absent = isinstance(error, ImportError) or isinstance(error.__context__, ImportError)
            said = (str(error) or type(error).__name__).splitlines()[0]
            detail = re.sub(r"(?<=://)[^\s/]*@|\?\w+=\S*", "", said)  # an address needs no user and no options
            state, mend = ("missing", _INSTALL) if absent else ("away", mend)
            rows.append((look.__name__.strip("_"), state, detail, mend))
    return [dict(zip(("part", "state", "detail", "mend"), row, strict=True)) for row in rows]


def _packages() -> Iterator[Row]:
    """Yield Python, then each package that the project needs on this platform, as its own metadata say."""
    project = metadata.metadata("cachelab")
    yield _versioned("Python", platform.python_version(), project["Requires-Python"], "make setup PYTHON=python3.13")
    for requirement in project.get_all("Requires-Dist"):
        needed, _, marker = requirement.partition(";")
        if "extra" in marker or ("win32" in marker and os.name == "nt"):
            continue
        name = re.match(r"[\w.-]+", needed)[0]
        try:
            yield _versioned(name, metadata.version(name), needed, _INSTALL)
        except metadata.PackageNotFoundError:
            yield name, "missing", f"needed: {needed}", _INSTALL
    if "Hiredis" in redis.connection.DefaultParser.__name__:
        yield "hiredis", "ok", f"{metadata.version('hiredis')}, reads the replies", ""
    else:
        yield "hiredis", "missing", "not in use: every reply takes longer to read", _INSTALL


def _server() -> Iterator[Row]:
    """Yield the server, how far away it is, how much it holds, and what it is too old for."""
    url, named = client.server_url(), _named()
    link = client.connect(url)
    info = link.info()
    speaks = info["redis_version"]
    name = f"Valkey {info['valkey_version']} (as Redis {speaks})" if "valkey_version" in info else f"Redis {speaks}"
    yield "server", "ok", f"{name}, {f'{client.address(url)} by {named[0]}' if named else 'embedded'}", ""
    seconds = median(timeit.repeat(link.ping, number=1, repeat=PINGS))
    yield "round trip", "ok", f"{1000 * seconds:.3f} ms, median of {PINGS} PINGs", ""
    limit = f"{info['maxmemory'] / 2**20:g} MB at most" if info.get("maxmemory") else "no limit"
    yield "memory", "ok", f"{limit}, {info.get('maxmemory_policy', 'policy unknown')}", ""
    least = redis.connection.CacheProxyConnection.MIN_ALLOWED_VERSION
    yield _versioned("client-side caching", speaks, least, _COMPOSE, "the server speaks Redis ")
    lessons = {path.name[:2]: _needs(path) for path in sorted((_ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    short = {number: needs for number, needs in lessons.items() if _older(speaks, needs)}
    told = [f"{number} in part (needs Redis {needs})" for number, needs in short.items()]
    told.insert(0, "this server runs " + (" ".join(number for number in lessons if number not in short) or "none"))
    yield "lessons", "old" if short else "ok", ", ".join(told), _COMPOSE if short else ""


def _database() -> Iterator[Row]:
    url = os.environ.get("CACHELAB_DATABASE_URL")
    with UserDatabase(latency=0) as database:
        database.get("user-1")
    named = f"{client.address(url)} by CACHELAB_DATABASE_URL" if url else f"SQLite {sqlite3.sqlite_version}, private"
    yield "database", "ok", named, ""


def _versioned(part: str, found: str, needed: str, mend: str, said: str = "") -> Row:
    least = needed.rpartition(">=")[2]
    if _older(found, least):
        return part, "old", f"{said}{found}; needed: {least} or newer", mend
    return part, "ok", f"{said}{found}", ""


def _older(found: str, least: str) -> bool:
    one, other = (tuple(map(int, re.findall(r"\d+", version))) for version in (found, least))
    return one < other


def _needs(lesson: Path) -> str:
    """Return the Redis version below which a lesson skips something: "redis" in its metadata, if it says so."""
    said = re.search(
        r'^\s*"redis": "([\d.]+)"', lesson.read_text(encoding="utf-8"), re.M
    )  # in a cell quotes are escaped
    return said[1] if said else "0"


def _named() -> list[str]:
    """Return the variables that are set of those that name the server."""
    names = (f"REDIS_{part}" for part in ("URL", "HOST", "PORT", "USERNAME", "PASSWORD"))
    return [name for name in names if os.environ.get(name)]
