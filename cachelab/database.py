"""The slow source of truth: a table of users in SQLite or PostgreSQL that counts its calls."""

import asyncio
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from cachelab import _check
from cachelab._extras import need
from cachelab._loops import PerLoop
from cachelab._secret import Secret
from cachelab.errors import CachelabError
from cachelab.users import generate_users

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_VARIABLE = "CACHELAB_DATABASE_URL"
_SELECT = "SELECT value FROM cachelab_users WHERE id = :id"
_UPSERT = """INSERT INTO cachelab_users (id, value) VALUES (:id, :value)
             ON CONFLICT (id) DO UPDATE SET value = excluded.value"""
_DELETE = "DELETE FROM cachelab_users WHERE id = :id"
_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
_ROWS = 10_000  # that fill writes at a time: a million users pass through in constant memory
_PATIENCE = 600  # seconds to wait for a connection or a lock: overload is to queue, not to fail


class UserDatabase:
    """Open the table ``cachelab_users(id, value)`` and answer slowly, as a busy database does.

    A database that was named is never emptied, and no other table of it is touched. Sync calls
    share one pool of ``connections``; the async calls of each event loop may be as many again, and
    open a connection each, so that event loops may come and go.

    Args:
        url: ``sqlite:////absolute/path.db`` or ``postgresql://user:password@host/database``; by
            default the environment's CACHELAB_DATABASE_URL, and without that a private SQLite file
            which ``close()``, garbage collection or the end of the process removes.
        latency: Seconds added to each call, or a function of no arguments that draws them. The
            statement runs at once, then its answer is held back, and its connection with it.
        connections: How many calls run at once; more queue.

    Attributes:
        latency: May be set at any time.
        reads: Reads that were answered; set it to 0 to count afresh.
        writes: The same for writes.
        name: What may be shown of the URL: no user, no password, no options.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument breaks its rule; a URL is never shown.
        CachelabError: The database cannot be opened; the message names it and the way out.
    """

    _url = Secret()
    name = "not opened"
    latency: float | Callable[[], float] = 0.0
    connections = 0

    def __init__(
        self,
        url: str | None = None,
        latency: float | Callable[[], float] = 2.0,
        connections: int = 10,
    ) -> None:
        need("UserDatabase", "database")
        from sqlalchemy import text

        if url is not None and not isinstance(url, str):
            kind = type(url).__name__
            del url  # a traceback may show local variables
            raise TypeError(f"url must be a str, not {kind} (not shown: it may hold a password)")
        self.latency = latency if callable(latency) else _check.wait("latency", latency)
        self.connections = _check.whole("connections", connections, least=1)
        self.reads = self.writes = 0
        self._select = text(_SELECT)
        self._upsert = text(_UPSERT)
        self._delete = text(_DELETE)
        self._lock = threading.Lock()
        source = _VARIABLE if url is None else "url"
        url = Secret(os.environ.get(_VARIABLE, "") if url is None else url)
        folder = None
        if not url and source == _VARIABLE:
            folder = tempfile.mkdtemp(prefix="cachelab-db-")  # mode 0700
            url = Secret(f"sqlite:///{quote(folder)}/users.db")
        self._url, self.name = _parsed(source, url)
        self._engine = _engine(self._url, self.name, self.connections)
        self._by_loop = PerLoop(partial(_async_engine, self._url, self.connections))
        self._release = weakref.finalize(self, _release, self._engine, folder, os.getpid())
        _engines.add(self._engine)
        if failure := _prepared(self._engine):
            self.close()
            raise CachelabError(
                f"{self.name} cannot be opened: {failure}\nStart it or correct its URL; "
                f"without url and {_VARIABLE} a private SQLite file is used."
            )

    @property
    def url(self) -> str:
        """The URL, password and all, which opens the same data in any process, a forked one too."""
        return str(self._url)

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
        """Write the user's value, committed when the call returns, over one that was there."""
        latency = self._checked(user_id, value)
        with self._engine.connect() as connection:
            connection.execute(self._upsert, {"id": user_id, "value": value})
            self._count(writes=1)
            if latency:
                time.sleep(latency)

    async def put_async(self, user_id: str, value: str) -> None:
        """Write the user's value, committed when the call returns, over one that was there."""
        latency = self._checked(user_id, value)
        async with self._connect_async() as connection:
            await connection.execute(self._upsert, {"id": user_id, "value": value})
            self._count(writes=1)
            if latency:
                await asyncio.sleep(latency)

    def fill(self, count: int = 1000, seed: int | None = 0) -> None:
        """Write the users of ``generate_users(count, seed=seed)``: all or none.

        Users with the same ids are replaced, others stay. It takes no latency and counts nothing.

        Args:
            count: How many.
            seed: Of the values; None for new ones each time.

        Raises:
            TypeError: An argument is no whole number; nothing has been written.
            ValueError: It is too small or too large; nothing has been written.
            CachelabError: The database is closed.
        """
        users = generate_users(count, seed=seed)
        self._checked("user-1")
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            while rows := [{"id": id, "value": value} for id, value in islice(users, _ROWS)]:
                connection.execute(self._upsert, rows)
            connection.exec_driver_sql("COMMIT")

    @contextmanager
    def transaction(self, patience: float = 5.0) -> Iterator["Connection"]:
        """Run statements as one: committed where the block ends, undone if it raises.

        It takes the latency once, after the commit, and counts as one write. On SQLite it is alone
        from its first statement on; on PostgreSQL it is ended by the server when it does nothing
        for a minute, so that a process that was stopped does not keep its locks.

        Args:
            patience: Seconds to wait for another's lock; then the statement raises.

        Yields:
            The SQLAlchemy connection to run them on.
        """
        latency = self._checked("user-1")
        wait_ms = round(1000 * _check.wait("patience", patience))
        with self._engine.connect() as connection:
            run = connection.exec_driver_sql
            try:
                if self._engine.name == "sqlite":
                    run(f"PRAGMA busy_timeout = {wait_ms}")
                    run("BEGIN IMMEDIATE")
                else:
                    run("BEGIN")
                    run(f"SET LOCAL lock_timeout = {wait_ms}")
                    run("SET LOCAL idle_in_transaction_session_timeout = 60000")
                yield connection
                run("COMMIT")
            finally:  # an interrupt within a statement has closed the connection
                if self._engine.name == "sqlite" and not connection.invalidated:
                    run(f"PRAGMA busy_timeout = {1000 * _PATIENCE}")
            self._count(writes=1)
            if latency:
                time.sleep(latency)

    def write(self, connection: "Connection", rows: Mapping[str, str | None]) -> None:
        """Write many users within a `transaction`; None deletes one."""
        for user_id, value in rows.items():
            self._checked(user_id, value or "")
        put = [{"id": id, "value": value} for id, value in rows.items() if value is not None]
        gone = [{"id": id} for id, value in rows.items() if value is None]
        for statement, arguments in ((self._upsert, put), (self._delete, gone)):
            if arguments:
                connection.execute(statement, arguments)

    def close(self) -> None:
        """Close the connections and remove the private file; a second call does nothing."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        settings = f"latency={self.latency!r}, connections={self.connections}"
        return f"UserDatabase({self.name!r}, {settings})"

    @asynccontextmanager
    async def _connect_async(self) -> AsyncIterator["AsyncConnection"]:
        """Open a connection when fewer than ``connections`` are open in this event loop."""
        limit, engine = self._by_loop.here()
        async with limit, engine.connect() as connection:
            yield connection

    def _checked(self, user_id: str, value: str = "") -> float:
        """Check the arguments of a call, and that it may be made; return the latency to add."""
        _check.identity("user_id", user_id)
        if "\0" in user_id + _check.text("value", value) and self._engine.name == "postgresql":
            rule = "user_id and value must be without NUL characters on PostgreSQL"
            raise ValueError(f"{rule}, not {user_id!r}")
        if not self._release.alive:
            raise CachelabError(f"{self!r} is closed")
        return _check.wait("latency", self.latency() if callable(self.latency) else self.latency)

    def _count(self, reads: int = 0, writes: int = 0) -> None:
        with self._lock:
            self.reads += reads
            self.writes += writes


def _parsed(source: str, url: Secret) -> tuple[Secret, str]:
    """Return a URL with its driver, and what may be shown of it.

    Errors are raised outside of the handlers that caught their causes: what a cause carries along
    (text, local variables) may hold the password.
    """
    from sqlalchemy import URL, exc, make_url

    form = "sqlite:////absolute/path.db or postgresql://user:password@host/database"
    told = f"{source} must be {form}, and it"
    try:
        url.encode()
        parts = make_url(url)
        parts = parts.set(drivername=_DRIVERS[parts.get_backend_name()])
    except (exc.ArgumentError, ValueError, KeyError):
        parts = None
    if parts is None:
        raise ValueError(f"{told} cannot be read (not shown: it may hold a password)")
    is_file = parts.drivername == "sqlite"
    if is_file and parts.database in (None, "", ":memory:"):
        raise ValueError(f"{told} names no file, which other processes can open")
    if is_file and (parts.host or parts.username or parts.query):
        del parts
        raise ValueError(f"{told} has more than the path of a file: a host, a user or options")
    # SQLAlchemy takes the first @ for the end of the password, wherever it stands.
    place, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    has_user = parts.username is not None
    if not is_file and (place.count("@") != has_user or "@" in path):
        del parts, place, path
        rule = "in user and password @ is written as %40, / as %2F, ? as %3F"
        raise ValueError(f"{told} cannot be told apart: {rule}")
    shown = URL.create(parts.get_backend_name(), None, None, parts.host, parts.port, parts.database)
    return Secret(parts.render_as_string(hide_password=False)), shown.render_as_string()


def _settings(url: Secret) -> dict[str, Any]:
    patience = {"timeout": _PATIENCE} if url.startswith("sqlite") else {"connect_timeout": 5}
    # autocommit: each call is one statement, which needs no round trips for BEGIN and COMMIT
    return {"isolation_level": "AUTOCOMMIT", "connect_args": patience}


def _engine(url: Secret, name: str, connections: int) -> "Engine":
    from sqlalchemy import QueuePool, create_engine

    limits: dict[str, Any] = {"pool_size": connections, "max_overflow": 0}
    try:
        return create_engine(
            url, poolclass=QueuePool, pool_timeout=_PATIENCE, **limits, **_settings(url)
        )
    except ModuleNotFoundError as error:
        missing = error.name
    raise CachelabError(f"{name} needs {missing}: pip install 'cachelab[postgres]'")


def _async_engine(url: Secret, connections: int) -> tuple[asyncio.Semaphore, "AsyncEngine"]:
    """Return what lets calls in, and what opens their connections, which belong to one loop."""
    from sqlalchemy import NullPool
    from sqlalchemy.ext.asyncio import create_async_engine

    driven = Secret(url.replace("sqlite:", "sqlite+aiosqlite:", 1))  # psycopg is sync and async
    engine = create_async_engine(
        driven,
        poolclass=NullPool,  # a pool would outlive its loop
        **_settings(url),
    )
    return asyncio.Semaphore(connections), engine


def _prepared(engine: "Engine") -> str:
    """Create the table where it is missing; return what went wrong, nothing if all is well."""
    from sqlalchemy import Column, MetaData, Table, Text, exc

    tables = MetaData()
    Table(
        "cachelab_users",
        tables,
        Column("id", Text, primary_key=True),
        Column("value", Text, nullable=False),
    )
    try:
        if engine.name == "sqlite":
            with engine.connect() as connection:
                # readers and a writer do not block each other
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        try:
            tables.create_all(engine)
        except exc.DBAPIError:  # another process may have been faster, after the look
            tables.create_all(engine)
    except exc.DBAPIError as error:
        said = str(error.orig) or type(error.orig).__name__
    except UnicodeError:
        said = "its host is no name"
    else:
        return ""
    return said.splitlines()[0]


_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def _before_fork() -> None:
    """Close SQLite's idle connections.

    A child that has them takes its parent's locks for its own, and takes none: the parent, which
    sees nobody, then removes the log that the child goes on writing.
    """
    for engine in list(_engines):
        if engine.name == "sqlite":
            engine.dispose()


def _forked() -> None:
    """Leave the parent's connections to the parent."""
    for engine in list(_engines):
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_forked)


def _release(engine: "Engine", folder: str | None, owner: int) -> None:
    """Close the pool and remove the private folder, but not from a forked child."""
    if os.getpid() == owner:
        engine.dispose()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
