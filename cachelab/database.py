"""The slow source of truth: one table of users in SQLite, or in PostgreSQL by URL, that counts what it is asked."""

import asyncio
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Self

from cachelab import _check
from cachelab.errors import CachelabError
from cachelab.seeder import generate_users

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_SELECT = "SELECT value FROM cachelab_users WHERE id = :id"
_UPSERT = """INSERT INTO cachelab_users (id, value) VALUES (:id, :value)
             ON CONFLICT (id) DO UPDATE SET value = excluded.value"""
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_ROWS = 10_000  # that fill writes at a time: a million users pass through in constant memory
_PATIENCE = 600  # seconds to wait for a free connection or another's lock: overload is to queue, not to fail


class UserDatabase:
    """Open the table ``cachelab_users(id, value)`` and answer slowly, as a busy database does.

    url: ``sqlite:////absolute/path.db`` or ``postgresql://user:password@host/database``; by default the environment's
    CACHELAB_DATABASE_URL, and without that a private SQLite file which ``close()``, garbage collection or the end of
    the process removes. A database that was named is never emptied, and no other table of it is touched.
    latency: seconds added to each call, or a function of no arguments that draws them; may be set at any time. The
    statement runs at once, then its answer is held back for that long, and its connection with it.
    connections: how many calls run at once; more queue. Sync calls share one pool of that size; the async calls of
    each event loop may be as many again, and open a connection each, so that event loops may come and go.

    ``reads`` and ``writes`` count the statements that were answered; set them to 0 to count afresh. ``url`` opens the
    same data in another process (a forked one, too) and holds the password if there is one; ``repr`` never shows it.
    Raises CachelabError, which names the database and the way out, when it cannot be opened.
    """

    def __init__(self, url: str | None = None, latency: float | Callable[[], float] = 2.0, connections: int = 10):
        from sqlalchemy import QueuePool, create_engine, exc, text

        self.latency = latency if callable(latency) else _check.number("latency", latency)
        self.connections = _check.whole("connections", connections, least=1)
        self.reads = self.writes = 0
        self._select, self._upsert = text(_SELECT), text(_UPSERT)
        self._lock = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, tuple[asyncio.Semaphore, AsyncEngine]] = {}
        folder = None
        if url is None and not (url := os.environ.get("CACHELAB_DATABASE_URL")):
            folder = tempfile.mkdtemp(prefix="cachelab-db-")  # mode 0700
            url = f"sqlite:///{folder}/users.db"
        address = _parsed(url)
        self.url = address.render_as_string(hide_password=False)
        self._name = address.set(query={}).render_as_string().replace("+psycopg", "")  # the query may hold a password
        patience = {"timeout": _PATIENCE} if address.drivername == "sqlite" else {"connect_timeout": 5}
        # autocommit: each call is one statement, which needs no round trips for BEGIN and COMMIT
        self._options = {"isolation_level": "AUTOCOMMIT", "connect_args": patience}
        limits = {"pool_size": connections, "max_overflow": 0, "pool_timeout": _PATIENCE}
        try:
            self._engine = create_engine(address, poolclass=QueuePool, **limits, **self._options)
        except ModuleNotFoundError as error:
            raise CachelabError(f"{self._name} needs {error.name}: pip install 'cachelab[postgres]'") from None
        self._release = weakref.finalize(self, _release, self._engine, folder, os.getpid())
        try:
            _prepare(self._engine)
        except exc.DBAPIError as error:
            self.close()
            raise CachelabError(
                f"{self._name} cannot be opened: {str(error.orig).splitlines()[0]}\nStart it or correct its URL; without url "
                "and CACHELAB_DATABASE_URL a private SQLite file is used."
            ) from None

    def get(self, user_id: str) -> str | None:
        """Return the user's value, or None when there is no such user."""
        latency = self._checked(user_id)
        with self._engine.connect() as connection:
            value = connection.execute(self._select, {"id": user_id}).scalar()
            self._count(reads=1)
            if latency:  # sleep(0) would cost more than the query
                time.sleep(latency)
        return value

    async def get_async(self, user_id: str) -> str | None:
        """Return the user's value, or None when there is no such user."""
        latency = self._checked(user_id)
        async with self._connect_async() as connection:
            value = (await connection.execute(self._select, {"id": user_id})).scalar()
            self._count(reads=1)
            if latency:
                await asyncio.sleep(latency)
        return value

    def put(self, user_id: str, value: str) -> None:
        """Write the user's value, committed when the call returns; a value that was there is replaced."""
        latency = self._checked(user_id, value)
        with self._engine.connect() as connection:
            connection.execute(self._upsert, {"id": user_id, "value": value})
            self._count(writes=1)
            if latency:
                time.sleep(latency)

    async def put_async(self, user_id: str, value: str) -> None:
        """Write the user's value, committed when the call returns; a value that was there is replaced."""
        latency = self._checked(user_id, value)
        async with self._connect_async() as connection:
            await connection.execute(self._upsert, {"id": user_id, "value": value})
            self._count(writes=1)
            if latency:
                await asyncio.sleep(latency)

    def fill(self, count: int = 1000, seed: int | None = 0) -> None:
        """Write the users of ``generate_users(count, seed=seed)``: all or none, without latency, not counted.

        Users with the same ids are replaced, others stay.
        """
        users = generate_users(count, seed=seed)
        self._checked("user-1")
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            while rows := [{"id": id, "value": value} for id, value in islice(users, _ROWS)]:
                connection.execute(self._upsert, rows)
            connection.exec_driver_sql("COMMIT")

    def close(self) -> None:
        """Close the connections and remove the private file; a second call does nothing."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"UserDatabase({self._name!r}, latency={self.latency!r}, connections={self.connections})"

    @asynccontextmanager
    async def _connect_async(self) -> AsyncIterator["AsyncConnection"]:
        """Open a connection when fewer than ``connections`` are open in this event loop, to which it belongs."""
        from sqlalchemy import NullPool
        from sqlalchemy.ext.asyncio import create_async_engine

        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            for closed in [known for known in list(self._loops) if known.is_closed()]:
                self._loops.pop(closed, None)
            url = self.url.replace("sqlite:", "sqlite+aiosqlite:", 1)  # psycopg is both sync and async
            engine = create_async_engine(url, poolclass=NullPool, **self._options)  # a pool would outlive its loop
            self._loops[loop] = asyncio.Semaphore(self.connections), engine
        limit, engine = self._loops[loop]
        async with limit, engine.connect() as connection:
            yield connection

    def _checked(self, user_id: str, value: str = "") -> float:
        """Check the arguments of a call, and that it may be made; return the latency to add."""
        _check.identity("user_id", user_id)
        if "\0" in user_id + _check.text("value", value) and self._engine.name == "postgresql":
            raise ValueError(f"user_id and value must be without NUL characters on PostgreSQL, not {user_id!r}")
        if not self._release.alive:
            raise CachelabError(f"{self!r} is closed")
        return _check.number("latency", self.latency() if callable(self.latency) else self.latency)

    def _count(self, reads: int = 0, writes: int = 0) -> None:
        with self._lock:
            self.reads += reads
            self.writes += writes


def _parsed(url: str) -> "URL":
    from sqlalchemy import exc, make_url

    form = "url must be sqlite:////absolute/path.db or postgresql://user:password@host/database"
    try:
        address = make_url(_check.text("url", url))
        address = address.set(drivername=_DRIVERS[address.get_backend_name()])
    except (exc.ArgumentError, ValueError, KeyError):
        raise ValueError(f"{form}, and what it is now cannot be read (not shown: it may hold a password)") from None
    if address.drivername == "sqlite" and address.database in (None, "", ":memory:"):
        raise ValueError(f"{form}: a file, which other processes can open, not {url!r}")
    return address


def _prepare(engine: "Engine") -> None:
    """Create the table where it is missing."""
    from sqlalchemy import Column, MetaData, Table, Text, exc

    tables = MetaData()
    Table("cachelab_users", tables, Column("id", Text, primary_key=True), Column("value", Text, nullable=False))
    if engine.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # readers and a writer do not block each other
    try:
        tables.create_all(engine)
    except exc.DBAPIError:  # another process may have been faster, between the look and the creation
        tables.create_all(engine)


def _release(engine: "Engine", folder: str | None, owner: int) -> None:
    """Close the pool and remove the private folder, but not from a forked child."""
    if os.getpid() == owner:
        engine.dispose()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
