"""Where messages become rows: each message once, whoever brings it and however often.

In the transaction of the rows themselves the database remembers the id of each message, and of
each row the latest message that it knows. To remember the last id alone would not do: who claims
the messages of a dead worker brings them after newer ones.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cachelab.cache.codec import from_json
from cachelab.database import UserDatabase
from cachelab.writes.stream import Message, order

if TYPE_CHECKING:
    from sqlalchemy import Connection

Store = Callable[["Connection", str, Any], object]
Latest = Callable[[Sequence[Message]], list[Message]]

APPLIED = "applied"
SUPERSEDED = "superseded"  # a newer write of its row came first, or with it

# New or not, the row is locked when this has ended; in one order always, or two workers would wait
# for each other in a circle.
_LOCK = """INSERT INTO cachelab_versions (stream, group_name, row_id, message_id)
           VALUES (:stream, :group_name, :row_id, '0-0')
           ON CONFLICT (stream, group_name, row_id)
           DO UPDATE SET message_id = cachelab_versions.message_id"""
_VERSIONS = """SELECT row_id, message_id FROM cachelab_versions
               WHERE stream = :stream AND group_name = :group_name AND row_id IN :asked"""
_KNOWN = """SELECT message_id, content FROM cachelab_applied
            WHERE stream = :stream AND group_name = :group_name AND message_id IN :asked"""
_ADVANCE = """UPDATE cachelab_versions SET message_id = :message_id
              WHERE stream = :stream AND group_name = :group_name AND row_id = :row_id"""
_REMEMBER = """INSERT INTO cachelab_applied
               (stream, group_name, message_id, content, put_at_ms, row_id, outcome)
               VALUES
               (:stream, :group_name, :message_id, :content, :put_at_ms, :row_id, :outcome)"""
_PRUNE = """DELETE FROM cachelab_applied
            WHERE stream = :stream AND group_name = :group_name AND put_at_ms < :before_ms"""

# SQLite: busy, locked, out of memory, read-only, I/O, corrupt, full, cannot open, protocol.
_SQLITE_AWAY = {5, 6, 7, 8, 10, 11, 13, 14, 15}
# PostgreSQL: connection, serialisation and deadlock, resources, lock and timeout, operator, system;
# and what ails every message alike: no such table or column, no permission.
_POSTGRES_AWAY = ("08", "40", "53", "55P03", "57", "58", "25006", "25P03")
_POSTGRES_UNFIT = ("42P01", "42703", "42501")


class Brought(NamedTuple):
    """What became of messages: how many were applied, superseded, or there before."""

    applied: int
    superseded: int
    repeated: int


class Rows:
    """The rows that the messages of a stream become, as one group of workers brings them.

    Args:
        database: Where they stand, with the tables cachelab_applied and cachelab_versions beside.
        stream: The name of the stream.
        group: The name of the group.
        latest: A function that returns those of messages after which nothing was put in their
            rows. It is asked, while their rows are locked, for what looks older than they are: a
            stream that was lost, or cut short by a fail-over, begins again by another clock.
        store: A function of the connection, an id and its value, None for a row to delete, that
            writes one row; by default cachelab_users, where what is no text is kept as JSON.
    """

    def __init__(
        self,
        database: UserDatabase,
        stream: str,
        group: str,
        latest: Latest,
        store: Store | None = None,
    ):
        from sqlalchemy import bindparam, text

        self._database = database
        self._whose = {"stream": stream, "group_name": group}
        self._latest = latest
        self._store = store
        self._is_prepared = False
        several: Any = bindparam("asked", expanding=True)
        self._versions = text(_VERSIONS).bindparams(several)
        self._known = text(_KNOWN).bindparams(several)
        self._statements = {sql: text(sql) for sql in (_LOCK, _ADVANCE, _REMEMBER, _PRUNE)}

    def apply(self, messages: Iterable[Message]) -> Brought:
        """Bring messages to their rows in one transaction: all of them or none.

        Of several writes of one row the latest is written, the others are superseded.

        Raises:
            Exception: What the database or store raises; `is_away` tells whose fault it is.
        """
        self._prepare()
        by_row: dict[str, list[Message]] = {}
        for message in sorted(messages, key=lambda message: message.order):
            by_row.setdefault(message.id, []).append(message)
        by_row = dict(sorted(by_row.items()))
        values = {id: from_json(puts[-1].text) for id, puts in by_row.items()}
        self._is_prepared = False  # until this has gone well: the tables may have been dropped
        with self._database.transaction() as connection:
            versions = self._locked(connection, list(values))
            asked = [message for puts in by_row.values() for message in puts]
            known = self._remembered(connection, asked)
            last = [puts[-1] for puts in by_row.values() if puts[-1] not in known]
            newer = [message for message in last if message.order > order(versions[message.id])]
            older = [message for message in last if message not in newer]
            new = newer + (self._latest(older) if older else [])
            self._write(connection, {message.id: values[message.id] for message in new})
            outcomes = {
                message: SUPERSEDED for message in asked if message not in known
            } | dict.fromkeys(new, APPLIED)
            self._remember(connection, newer, outcomes)
        self._is_prepared = True
        return Brought(len(new), len(outcomes) - len(new), len(asked) - len(outcomes))

    def knows(self, message: Message) -> bool:
        """Say whether a message has been applied, or superseded."""
        self._prepare()
        with self._database.transaction() as connection:
            return bool(self._remembered(connection, [message]))

    def prune(self, before_ms: int) -> None:
        """Forget the ids of messages that were put before a time, by the stream's clock."""
        self._prepare()
        with self._database.transaction() as connection:
            self._run(connection, _PRUNE, [{"before_ms": before_ms}])

    def _remembered(self, connection: "Connection", messages: Sequence[Message]) -> set[Message]:
        """Return those of messages that have been brought before.

        The id alone does not tell: a stream that begins again gives some of them once more.
        """
        ids = [message.message_id for message in messages]
        found = {(id, content) for id, content in self._ask(connection, self._known, ids)}
        return {message for message in messages if (message.message_id, _digest(message)) in found}

    def _locked(self, connection: "Connection", ids: list[str]) -> dict[str, str]:
        """Lock the rows of ids; return the latest message that each has seen."""
        self._run(connection, _LOCK, [{"row_id": id} for id in ids])
        found = self._ask(connection, self._versions, ids)
        return {id: message_id for id, message_id in found}

    def _write(self, connection: "Connection", values: dict[str, Any]) -> None:
        if self._store is not None:
            for id, value in values.items():
                self._store(connection, id, value)
            return
        self._database.write(connection, {id: as_text(value) for id, value in values.items()})

    def _remember(
        self, connection: "Connection", latest: Iterable[Message], outcomes: dict[Message, str]
    ) -> None:
        versions = [{"row_id": one.id, "message_id": one.message_id} for one in latest]
        self._run(connection, _ADVANCE, versions)
        records = [
            {
                "message_id": message.message_id,
                "content": _digest(message),
                "put_at_ms": message.order[0],
                "row_id": message.id,
                "outcome": outcome,
            }
            for message, outcome in outcomes.items()
        ]
        self._run(connection, _REMEMBER, records)

    def _run(self, connection: "Connection", sql: str, arguments: list[dict[str, Any]]) -> None:
        if arguments:
            whole = [one | self._whose for one in arguments]
            connection.execute(self._statements[sql], whole)

    def _ask(self, connection: "Connection", statement: Any, asked: list[str]) -> Any:
        return connection.execute(statement, {"asked": asked, **self._whose})

    def _prepare(self) -> None:
        """Create the tables where they are missing."""
        if self._is_prepared:
            return
        from sqlalchemy import exc

        tables = _tables()
        try:
            with self._database.transaction() as connection:
                tables.create_all(connection)
        except exc.DBAPIError as error:  # another worker may have been faster, after the look
            if is_away(error):
                raise
            with self._database.transaction() as connection:
                tables.create_all(connection)
        self._is_prepared = True


def is_away(error: BaseException) -> bool:
    """Say whether the database is away, locked, full or unfit: that passes, whatever is written.

    An error of SQL or of a value comes again with the same message, and only with it.
    """
    from sqlalchemy import exc

    if isinstance(error, (exc.TimeoutError, ConnectionError, TimeoutError)):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    cause = error.orig
    if (code := getattr(cause, "sqlite_errorcode", None)) is not None:
        return code & 0xFF in _SQLITE_AWAY or str(cause).startswith("no such table")
    if (getattr(cause, "sqlstate", None) or "") in _POSTGRES_UNFIT:
        return True
    if not isinstance(error, (exc.OperationalError, exc.InterfaceError, exc.InternalError)):
        return False
    state = getattr(cause, "sqlstate", None)
    return state is None or state.startswith(_POSTGRES_AWAY)


def as_text(value: Any) -> str | None:
    """Return what stands in cachelab_users for a value: a text as it is, else its JSON.

    >>> as_text("Ada"), as_text(["Ada"]), as_text(None)
    ('Ada', '["Ada"]', None)
    """
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def _digest(message: Message) -> str:
    """Return what tells a write from another one of the same message id."""
    told = f"{message.id}\0{message.text}".encode()
    return hashlib.blake2b(told, digest_size=16).hexdigest()


def _tables() -> Any:
    from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

    tables = MetaData()
    Table(
        "cachelab_applied",
        tables,
        Column("stream", Text, primary_key=True),
        Column("group_name", Text, primary_key=True),
        Column("message_id", Text, primary_key=True),
        Column("content", Text, primary_key=True),
        Column("put_at_ms", BigInteger, nullable=False),
        Column("row_id", Text, nullable=False),
        Column("outcome", Text, nullable=False),
        Index("cachelab_applied_by_time", "stream", "group_name", "put_at_ms"),
    )
    Table(
        "cachelab_versions",
        tables,
        Column("stream", Text, primary_key=True),
        Column("group_name", Text, primary_key=True),
        Column("row_id", Text, primary_key=True),
        Column("message_id", Text, nullable=False),
    )
    return tables
