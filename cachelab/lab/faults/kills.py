"""Workers that write behind, each in a process of its own, and killed: what is lost, what doubles.

The forms differ in how a write waits, and in when a worker lets go of it. Started as a program,
``python -m cachelab.lab.faults.kills``, this is the worker of one of them; pandas and what else it
can do without is imported where others need it.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import redis
from sqlalchemy import Connection, text

from cachelab import _check
from cachelab._secret import Secret
from cachelab.clients.client import connect
from cachelab.database import UserDatabase
from cachelab.errors import CachelabError
from cachelab.server.process import GuardedProcess
from cachelab.server.server import Server
from cachelab.writes import Worker, WriteBehind

if TYPE_CHECKING:
    import pandas as pd

Reach = Callable[[str], None]  # called with one of `POINTS` by a worker that has come there
Message = tuple[str, str, str]  # its own id, the row's id, the value

# Where a worker that holds messages may be killed.
POINTS = ("before commit", "after commit", "before acknowledge", "after acknowledge")
NAME, GROUP = "cachelab:kills", "rows"
STREAM = f"{{{NAME}}}:stream"  # of the WriteBehind of this name
BATCH = 50  # messages that a worker takes at most
MOST = 100  # messages that a stream with MAXLEN keeps
NEVER = 3600.0  # seconds until a worker takes over what a dead one held
COLUMNS = ["at", "acknowledged", "applied", "in Redis", "lost"]
LAST = 20.0  # seconds that are looked back on
PATIENCE = 60.0  # seconds for a worker to be killed or done; it takes a tenth of one

_TABLES = (
    "CREATE TABLE IF NOT EXISTS cachelab_journal (id TEXT)",
    "CREATE TABLE IF NOT EXISTS cachelab_seen (message TEXT PRIMARY KEY)",
)
_JOURNAL = text("INSERT INTO cachelab_journal (id) VALUES (:id)")
_SEEN = text("INSERT INTO cachelab_seen (message) VALUES (:message) ON CONFLICT DO NOTHING")
_LAST = text("SELECT MAX(message) FROM cachelab_seen")
_IDS = text("SELECT id FROM cachelab_users")
_DOUBLED = text("SELECT COUNT(*) - COUNT(DISTINCT id) FROM cachelab_journal")


class Rows(UserDatabase):
    """A SQLite file with the rows, and with a journal of each time that one was written.

    Args:
        folder: Where the file is.
        reach: Told when a transaction that wrote rows is before its commit, and after it.
    """

    def __init__(self, folder: str, reach: Reach = lambda point: None) -> None:
        super().__init__(f"sqlite:///{folder}/rows.db", latency=0, connections=2)
        self.reach = reach
        self._has_written = False
        with super().transaction() as connection:
            for table in _TABLES:
                connection.execute(text(table))

    @contextlib.contextmanager
    def transaction(self, patience: float = 5.0) -> Iterator[Connection]:
        """Run statements as one."""
        self._has_written = False
        with super().transaction(patience) as connection:
            yield connection
            if self._has_written:
                self.reach("before commit")
        if self._has_written:
            self.reach("after commit")

    def write(self, connection: Connection, rows: Mapping[str, str | None]) -> None:
        """Write rows, and note in the same transaction that they were written once more."""
        super().write(connection, rows)
        self._has_written = True
        for id in rows:
            connection.execute(_JOURNAL, {"id": id})

    def ids(self) -> set[str]:
        """Return the ids of all rows."""
        with self._engine.connect() as connection:
            return set(connection.execute(_IDS).scalars())

    def doubled(self) -> int:
        """Return how often a row was written that had been written before."""
        with self._engine.connect() as connection:
            return connection.execute(_DOUBLED).scalar_one()


class Form(Protocol):
    """How writes wait for the database."""

    def put(self, id: str, value: str) -> object:
        """Take a write; when this returns, it is acknowledged."""

    def waiting(self) -> set[str]:
        """Return the ids of the rows whose writes Redis still keeps for a worker."""

    def work(self, rows: Rows, claim_after: float) -> Iterator[int]:
        """Apply batch after batch, and yield how many messages each had."""


class Listed:
    """Writes wait in a list, and a worker pops them: from then on it alone knows of them."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def put(self, id: str, value: str) -> None:
        self.client.rpush(NAME, json.dumps([id, value]))

    def waiting(self) -> set[str]:
        return {json.loads(each)[0] for each in self.client.lrange(NAME, 0, -1)}

    def work(self, rows: Rows, claim_after: float) -> Iterator[int]:
        while True:
            rows.reach("before acknowledge")
            taken = self.client.lpop(NAME, BATCH) or []
            rows.reach("after acknowledge")
            if taken:
                with rows.transaction() as connection:
                    rows.write(connection, dict(map(json.loads, taken)))
            yield len(taken)


class Streamed:
    """Writes wait in a stream, whose group knows what each worker holds; all by hand.

    Args:
        client: A client of the server.
        early: Acknowledge before the commit.
        remember: What the database keeps of messages, in the rows' own transaction: "" nothing,
            "last" the last id, so that lower ones pass for done, "each" every id.
        most: How many messages the stream keeps, read or not; None for all.
    """

    def __init__(
        self, client: Any, early: bool = False, remember: str = "", most: int | None = None
    ) -> None:
        self.client, self.early, self.remember, self.most = client, early, remember, most
        _begin(client, NAME)

    def put(self, id: str, value: str) -> None:
        self.client.xadd(NAME, {"id": id, "value": value}, maxlen=self.most, approximate=False)

    def waiting(self) -> set[str]:
        return _unacknowledged(self.client, NAME)

    def work(self, rows: Rows, claim_after: float) -> Iterator[int]:
        me = f"worker-{os.getpid()}"
        while True:
            taken = self._read(me) or self._claim(me, claim_after)
            if taken and self.early:
                self._acknowledge(taken, rows.reach)
            if taken:
                with rows.transaction() as connection:
                    new = self._new(connection, taken)
                    rows.write(connection, {id: value for _, id, value in new})
            if taken and not self.early:
                self._acknowledge(taken, rows.reach)
            yield len(taken)

    def _read(self, me: str) -> list[Message]:
        read = self.client.xreadgroup(GROUP, me, {NAME: ">"}, count=BATCH)
        return _messages(read[0][1]) if read else []

    def _claim(self, me: str, claim_after: float) -> list[Message]:
        idle = int(1000 * claim_after)
        return _messages(self.client.xautoclaim(NAME, GROUP, me, idle, "0", count=BATCH)[1])

    def _acknowledge(self, taken: list[Message], reach: Reach) -> None:
        reach("before acknowledge")
        self.client.xack(NAME, GROUP, *(message for message, *_ in taken))
        reach("after acknowledge")

    def _new(self, connection: Connection, taken: list[Message]) -> list[Message]:
        """Return the messages that the database does not take for done, and remember them."""
        if not self.remember:
            return taken
        last = connection.execute(_LAST).scalar() if self.remember == "last" else None
        later = [one for one in taken if _padded(one[0]) > (last or "")]
        seen = [connection.execute(_SEEN, {"message": _padded(one[0])}).rowcount for one in later]
        return [one for one, is_new in zip(later, seen, strict=True) if is_new]


class Behind:
    """Writes wait in the stream of a `WriteBehind`, for a `Worker`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.put = WriteBehind[str](client, NAME).put
        _begin(client, STREAM)

    def waiting(self) -> set[str]:
        return _unacknowledged(self.client, STREAM)

    def work(self, rows: Rows, claim_after: float) -> Iterator[int]:
        soon = max(claim_after, 0.001)
        worker = _Worker(self.client, rows, NAME, GROUP, batch=BATCH, claim_after=soon)
        worker.reach = rows.reach
        while True:
            done = worker.step()
            yield done.read + done.claimed


class _Worker(Worker):
    """A worker that says how far it is."""

    reach: Reach

    def _acknowledge(self, messages: Sequence[Any]) -> None:
        self.reach("before acknowledge")
        super()._acknowledge(messages)
        self.reach("after acknowledge")


FORMS: dict[str, Callable[[Any], Form]] = {
    "a list, popped": Listed,
    "acknowledged first": partial(Streamed, early=True),
    "not idempotent": Streamed,
    "last id": partial(Streamed, remember="last"),
    "MAXLEN": partial(Streamed, remember="each", most=MOST),
    "WriteBehind": Behind,
}


def work(
    form: str,
    url: str,
    folder: str,
    point: str = "",
    pause: float = 0.0,
    claim_after: float = NEVER,
    drain: bool = False,
) -> None:
    """Be a worker of a form, in this process, until it is killed.

    Args:
        form: One of `FORMS`.
        url: The server's.
        folder: Where the database of the `Rows` is.
        point: One of `POINTS`, at which this process kills itself as soon as it gets there.
        pause: Seconds that the database takes for a commit.
        claim_after: Seconds after which messages that a dead worker held are taken over.
        drain: Return when there is nothing to do.
    """

    def reach(at: str) -> None:
        if at == "before commit":
            time.sleep(pause)
        if at == point:
            os.kill(os.getpid(), signal.SIGKILL)

    for count in FORMS[form](connect(url)).work(Rows(folder, reach), claim_after):
        if not count and drain:
            break
        if not count:
            time.sleep(0.01)


class Fate(NamedTuple):
    """What became of the writes of a form whose workers were killed.

    Attributes:
        form: Its name.
        kills: How many workers were killed.
        acknowledged: Writes, each of a row of its own.
        lost: Those whose row is not there when all is done.
        doubled: Those that were applied more than once.
    """

    form: str
    kills: int
    acknowledged: int
    lost: int
    doubled: int


def killed(form: str, kills: int = 20, each: int = 10) -> Fate:
    """Kill one worker after the other, at each of `POINTS` in turn; then one does what is left.

    Each worker finds new writes, takes them first, and is killed with them in its hands. So what
    the last one takes over is older than what others have applied meanwhile.

    Args:
        form: One of `FORMS`.
        kills: How many workers are killed.
        each: How many writes each of them finds.

    Raises:
        CachelabError: A worker ended in another way.
    """
    _check.choice("form", form, tuple(FORMS))
    kills = _check.whole("kills", kills, least=0)
    each = _check.whole("each", each, least=1, most=BATCH)
    with Server() as server, tempfile.TemporaryDirectory() as folder, Rows(folder) as rows:
        writes, acknowledged = FORMS[form](connect(server.url)), 0
        where = {"form": form, "url": server.url, "folder": folder}
        for kill in range(kills):
            for _ in range(each):
                acknowledged += 1
                writes.put(f"row-{acknowledged}", str(acknowledged))
            _ended(-signal.SIGKILL, **where, point=POINTS[kill % len(POINTS)])
        _ended(0, **where, claim_after=0.0, drain=True)
        return Fate(form, kills, acknowledged, acknowledged - len(rows.ids()), rows.doubled())


class Writers:
    """A writer on a server of its own, and one worker at a time, for buttons to kill and start.

    Args:
        form: One of `FORMS`.
        rate: Writes a second, each of a row of its own.
        pause: Seconds that the database takes for a commit.

    Attributes:
        server: The server.
        acknowledged: Writes so far.
        refused: Writes that were not taken, as the stream was full.
        lost: Acknowledged writes that were neither in Redis nor in the database when a worker had
            last been killed, so that nobody has them.
    """

    def __init__(self, form: str, rate: float = 100.0, pause: float = 0.25) -> None:
        _check.choice("form", form, tuple(FORMS))
        self.acknowledged = self.refused = self.lost = 0
        self._every = 1 / _check.number("rate", rate, above=0)
        self.server = Server().start()
        self._folder = tempfile.TemporaryDirectory(prefix="cachelab-kills-")
        self._rows = Rows(self._folder.name)
        self._form = FORMS[form](connect(self.server.url))
        where = {"form": form, "url": self.server.url, "folder": self._folder.name}
        how = {"pause": _check.wait("pause", pause), "claim_after": 1.0}
        self._orders = Secret(json.dumps(where | how))
        self._worker = GuardedProcess([sys.executable, "-m", "cachelab.lab.faults.kills"])
        self._seen: deque[tuple[float, int, int, int, int]] = deque(maxlen=1000)
        self._see(time.perf_counter(), 0, 0)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._writer = threading.Thread(target=self._write_on, daemon=True)
        self._writer.start()
        self.start_worker()

    @property
    def works(self) -> bool:
        """Whether a worker runs."""
        return self._worker.runs()

    def start_worker(self) -> None:
        """Start a worker, if none runs."""
        if not self.works:
            self._worker.start([self._orders])

    def kill_worker(self) -> None:
        """Kill the worker (SIGKILL), and count what nobody has any more."""
        self._worker.signal(signal.SIGKILL)
        with self._lock:  # no write is under way
            known = self._form.waiting() | self._rows.ids()
            self.lost = sum(f"row-{n}" not in known for n in range(1, self.acknowledged + 1))

    def recent(self, last: float = LAST) -> "pd.DataFrame":
        """Look, and return what was seen in the ``last`` seconds.

        Returns:
            DataFrame(at, acknowledged, applied, in Redis, lost): at counts back from now. The first
            row is what was so when the ``last`` seconds began.
        """
        import pandas as pd

        _check.number("last", last, above=0)
        with self._lock:
            waiting, now = len(self._form.waiting()), time.perf_counter()
            self._see(now, len(self._rows.ids()), waiting)
        df = pd.DataFrame(list(self._seen), columns=COLUMNS).assign(at=lambda df: df["at"] - now)
        return df[df["at"].shift(-1, fill_value=0) > -last].assign(
            at=lambda df: df["at"].clip(lower=-last)
        )

    def close(self) -> None:
        """End the writer, the worker and the server, and remove the database."""
        self._over.set()
        self._writer.join()
        self._worker.end()
        self.server.stop()
        self._rows.close()
        self._folder.cleanup()

    def _see(self, at: float, applied: int, waiting: int) -> None:
        self._seen.append((at, self.acknowledged, applied, waiting, self.lost))

    def _write_on(self) -> None:
        while not self._over.wait(self._every):
            with self._lock:
                number = self.acknowledged + 1
                try:
                    self._form.put(f"row-{number}", str(number))
                except CachelabError:
                    self.refused += 1
                else:
                    self.acknowledged = number


def _ended(status: int, **how: Any) -> None:
    """Let a child be a worker, and see that it ends as it should."""
    from cachelab.lab.contract.child import Child

    with Child(lambda say: work(**how)) as child:
        with contextlib.suppress(EOFError, TimeoutError):
            child.hear(PATIENCE)
        if (ended := child.kill()) != status:
            raise CachelabError(f"A worker ended with status {ended}, not {status}: {how['form']}")


def _begin(client: Any, stream: str) -> None:
    """Let a group read a stream from its begin on, if it does not yet."""
    with contextlib.suppress(redis.ResponseError):
        client.xgroup_create(stream, GROUP, "0", mkstream=True)


def _unacknowledged(client: Any, stream: str) -> set[str]:
    """Return the rows of a stream's messages that its group has not read, or not acknowledged."""
    held = client.xpending_range(stream, GROUP, "-", "+", 100_000)
    pending = {one["message_id"] for one in held}
    read = client.xinfo_groups(stream)[0]["last-delivered-id"]
    first = min(pending, key=_padded, default=f"({read}")  # ( stands for: after it
    return {
        fields["id"]
        for message, fields in client.xrange(stream, first)
        if message in pending or _padded(message) > _padded(read)
    }


def _messages(entries: list[tuple[str, dict[str, str]]]) -> list[Message]:
    return [(message, fields["id"], fields["value"]) for message, fields in entries if fields]


def _padded(message: str) -> str:
    """Return the id of a message as a text that sorts as the ids do."""
    return "-".join(part.zfill(20) for part in message.split("-"))


if __name__ == "__main__":
    work(**json.load(sys.stdin))
