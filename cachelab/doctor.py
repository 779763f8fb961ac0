"""Look at everything that the lessons lean on: what works, what does not, and the command that mends it."""

import json
import os
import platform
import re
import sqlite3
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter

import redis.connection

from cachelab import client
from cachelab.database import UserDatabase

OPTIONAL = frozenset({"client-side caching", "lessons"})  # nobody is stopped by these
PINGS = 100

_ROOT = Path(__file__).parents[1]

Row = dict[str, str]


def checks() -> list[Row]:
    """Return a row for each part with the keys part, state, detail and mend; never raise.

    state: "ok", "missing", "old" or "away" (there, but it does not answer). mend: the command that helps, or "".
    Starts the embedded server if that is the one in use; creates the database's table where it is missing. Neither
    passwords nor, of the embedded server, the port are shown.
    """
    return [row for part in (_packages, _server, _database) for row in _guarded(part)]


def _guarded(part: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield a part's rows; whatever it raises is the last one."""
    name = part.__name__.strip("_")
    try:
        yield from part()
    except Exception as error:  # the doctor reports, whatever it is that is broken
        absent = isinstance(error, ImportError) or isinstance(error.__context__, ImportError)
        said = (str(error) or type(error).__name__).splitlines()[0]
        detail = re.sub(r"(?<=://)[^\s/]*@|\?\w+=\S*", "", said)  # an address needs no user and no options
        yield _row(name, detail, "missing" if absent else "away", _install() if absent else _MENDS[name]())


def _packages() -> Iterator[Row]:
    """Yield Python, then each package that the project requires of this platform, by the project's own metadata."""
    project = metadata.metadata("cachelab")
    yield _versioned("Python", platform.python_version(), project["Requires-Python"], "make setup PYTHON=python3.13")
    for requirement in project.get_all("Requires-Dist"):
        needed, _, marker = requirement.partition(";")
        if "extra" in marker or ("win32" in marker and os.name == "nt"):
            continue
        name = re.match(r"[\w.-]+", needed)[0]
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield _row(name, f"not installed; needed: {needed.strip()}", "missing", _install())
        else:
            yield _versioned(name, found, needed, _install())
    in_use = "Hiredis" in redis.connection.DefaultParser.__name__
    detail = f"{metadata.version('hiredis')}, reads the replies" if in_use else "not in use: replies are read in Python"
    yield _row("hiredis", detail, "ok" if in_use else "missing", "" if in_use else _install())


def _server() -> Iterator[Row]:
    """Yield the server, how far away it is, how much it holds, and what it is too old for."""
    url, named = client.server_url(), _named()
    link = client.connect(url)
    info = link.info()
    speaks = info["redis_version"]
    name = f"Valkey {info['valkey_version']} (as Redis {speaks})" if "valkey_version" in info else f"Redis {speaks}"
    yield _row("server", f"{name}, {f'{client.address(url)} by {named[0]}' if named else 'embedded'}")
    yield _row("round trip", f"{1000 * median(_ping(link) for _ in range(PINGS)):.3f} ms, median of {PINGS} PINGs")
    limit = f"{info['maxmemory'] / 2**20:g} MB at most" if info.get("maxmemory") else "no limit"
    yield _row("memory", f"{limit}, {info.get('maxmemory_policy', 'policy unknown')}")
    wanted = redis.connection.CacheProxyConnection.MIN_ALLOWED_VERSION
    yield _versioned("client-side caching", speaks, wanted, _COMPOSE, "the server speaks Redis ")
    lessons = {path.name[:2]: _needs(path) for path in sorted((_ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    short = [f"{number} in part (Redis {needs})" for number, needs in lessons.items() if _older(speaks, needs)]
    can = " ".join(number for number, needs in lessons.items() if not _older(speaks, needs)) or "none"
    yield _row(
        "lessons", "this server runs " + ", ".join([can, *short]), "old" if short else "ok", _COMPOSE if short else ""
    )


def _database() -> Iterator[Row]:
    url = os.environ.get("CACHELAB_DATABASE_URL")
    with UserDatabase(latency=0) as database:
        database.get("user-1")
    named = f"{client.address(url)} by CACHELAB_DATABASE_URL" if url else f"SQLite {sqlite3.sqlite_version}, private"
    yield _row("database", named)


def _row(part: str, detail: str, state: str = "ok", mend: str = "") -> Row:
    return {"part": part, "state": state, "detail": detail, "mend": mend}


def _versioned(part: str, found: str, needed: str, mend: str, said: str = "") -> Row:
    least = needed.rpartition(">=")[2].strip()
    if _older(found, least):
        return _row(part, f"{said}{found}; needed: {least} or newer", "old", mend)
    return _row(part, f"{said}{found}")


def _older(found: str, least: str) -> bool:
    one, other = (tuple(map(int, re.findall(r"\d+", version))) for version in (found, least))
    return one < other


def _needs(lesson: Path) -> str:
    """Return the Redis version below which a lesson skips something, as its metadata say."""
    try:
        return json.loads(lesson.read_text(encoding="utf-8"))["metadata"].get("cachelab", {}).get("redis", "0")
    except (ValueError, KeyError):  # half-way through an edit: no fault of the server's
        return "0"


def _ping(link: redis.Redis) -> float:
    start = perf_counter()
    link.ping()
    return perf_counter() - start


def _install() -> str:
    ours = (_ROOT / ".venv" / ".ready").exists()
    return "rm .venv/.ready; make setup" if ours else "pip install --require-hashes -r requirements.txt"


def _named() -> list[str]:
    """Return the variables that name the server, those that are set."""
    return [name for name in (f"REDIS_{part}" for part in _PARTS) if os.environ.get(name)]


def _other_server() -> str:
    if named := _named():
        return f"unset {' '.join(named)}  # the embedded server is used"
    return _COMPOSE if os.name == "nt" else _install()


_PARTS = ("URL", "HOST", "PORT", "USERNAME", "PASSWORD")
_COMPOSE = "docker compose up --build --wait  # brings Redis 8"
_MENDS: dict[str, Callable[[], str]] = {
    "packages": _install,
    "server": _other_server,
    "database": lambda: "unset CACHELAB_DATABASE_URL  # a private SQLite file is used",
}
