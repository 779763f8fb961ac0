"""Points at which a worker ends or stops, without its code knowing: around COMMIT and XACK.

They lie beneath whatever the worker is written with, in the driver of SQLite and in the socket to
Redis, of this process alone. Nothing happens before the worker has read a message with a mark, so
that what it does at first, such as making tables, is done.
"""

import hashlib
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

POINTS = ("begin", "commit", "committed", "ack", "acked")  # of a transaction; of what is read
BUSY = 0.1  # seconds that a statement waits for a database which is locked
REFUSED = "the database refuses this value"

_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")
_LOADED = re.compile(rb"LOAD\r\n\$\d+\r\n(.*)\r\n$", re.DOTALL | re.IGNORECASE)


class Failpoints:
    """Put the points into this process, and act where they are reached, in their order.

    Args:
        acts: What is called at which of `POINTS`: before the transaction that writes, before and
            after its commit, before and after the messages are acknowledged.
        mark: What is in the message.
        refused: Where each statement that the database refused is noted, by a byte; a file.
    """

    def __init__(self, acts: Iterable[tuple[str, Callable[[], object]]], mark: str, refused: str):
        self._acts, self._mark = list(acts), mark.encode()
        self._has_read = False
        self._acking: set[int] = set()  # sockets whose reply is to an acknowledgement
        self._scripts: set[bytes] = set()  # the names of those that acknowledge
        self._refused = os.open(refused, os.O_WRONLY | os.O_APPEND)
        sqlite3.connect = sqlite3.dbapi2.connect = self._connect
        for name in ("send", "sendall"):
            setattr(socket.socket, name, self._sending(getattr(socket.socket, name)))
        for name in ("recv", "recv_into"):
            setattr(socket.socket, name, self._receiving(getattr(socket.socket, name)))

    def reach(self, point: str) -> None:
        """Say that the process has come to a point."""
        if self._has_read and self._acts and point == self._acts[0][0]:
            self._acts.pop(0)[1]()

    def refuse(self) -> None:
        """Note that the database has refused a statement."""
        os.write(self._refused, b".")

    def _connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        made = type("Connection", (_Connection,), {"points": self})
        return _connect(*arguments, **{"factory": made} | options | {"timeout": BUSY})

    def _sending(self, send: Callable) -> Callable:
        def call(sock: socket.socket, data: bytes, *more: Any) -> Any:
            if is_ack := self._acknowledges(bytes(data)):
                self.reach("ack")
                self._acking.add(sock.fileno())
            if not is_ack:
                self._acking.discard(sock.fileno())
            return send(sock, data, *more)

        return call

    def _receiving(self, receive: Callable) -> Callable:
        def call(sock: socket.socket, *arguments: Any) -> Any:
            received = receive(sock, *arguments)
            if sock.fileno() in self._acking:
                self._acking.discard(sock.fileno())
                self.reach("acked")
            data = arguments[0][:received] if isinstance(received, int) else received
            self._has_read = self._has_read or self._mark in bytes(data)
            return received

        return call

    def _acknowledges(self, sent: bytes) -> bool:
        """Say whether a command acknowledges messages, by itself or by a script."""
        said = sent.upper()
        if b"XACK" in said:
            if loaded := _LOADED.search(sent):
                self._scripts.add(hashlib.sha1(loaded[1]).hexdigest().encode())  # noqa: S324
                return False
            return True
        return b"EVALSHA" in said and any(name in sent for name in self._scripts)


_connect = sqlite3.connect


class _Cursor(sqlite3.Cursor):
    """A cursor that comes to the points."""

    connection: "_Connection"

    def execute(self, sql: str, *parameters: Any) -> Any:
        return self._run(super().execute, sql, *parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        return self._run(super().executemany, sql, parameters)

    def _run(self, call: Callable, sql: str, *parameters: Any) -> Any:
        points, word = self.connection.points, (sql.split(None, 1) or [""])[0].strip(";").upper()
        if "busy_timeout" in sql.lower():
            sql = f"PRAGMA busy_timeout = {round(1000 * BUSY)}"
        is_commit = word in ("COMMIT", "END")
        if not self.connection.in_transaction and (word in _WRITES or word == "BEGIN"):
            points.reach("begin")
            # without a transaction around it a write is one of its own
            is_commit = word in _WRITES and self.connection.isolation_level is None
        if is_commit:
            points.reach("commit")
        try:
            done = call(sql, *parameters)
        except sqlite3.Error as error:
            if REFUSED in str(error):
                points.refuse()
            raise
        if is_commit:
            points.reach("committed")
        return done


class _Connection(sqlite3.Connection):
    """A connection whose cursors, and whose own commit, come to the points."""

    points: Failpoints

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, *arguments: Any) -> Any:  # by itself it takes a cursor that is not ours
        return self.cursor().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.cursor().executemany(*arguments)

    def commit(self) -> None:
        if not self.in_transaction:
            return super().commit()
        self.points.reach("commit")
        super().commit()
        self.points.reach("committed")

    def __exit__(self, *error: Any) -> Any:
        if error[0] is None:
            self.commit()
        else:
            self.rollback()
        return False
