"""What becomes of writes that wait in Redis when their worker dies, or the server does.

Workers are functions of a notebook, carried over into a process of their own (`lives`).
"""

import inspect
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from unittest.mock import patch

import pandas as pd
import redis
from matplotlib.axes import Axes

from cachelab import _check
from cachelab.clients import connect
from cachelab.database import UserDatabase
from cachelab.errors import CachelabError
from cachelab.lab.draw import charts
from cachelab.lab.measure.callers import after_first
from cachelab.server.server import Server
from cachelab.writes.worker import Worker

Put = Callable[[redis.Redis, str, str], object]
Work = Callable[[redis.Redis, sqlite3.Connection], object]
Write = Callable[[str, str], object]

COLUMNS = ["number", "id", "acknowledged", "applied", "times", "late"]
ROLES = {"acknowledged": "threads", "applied": "cache", "lost": "database"}
FATES = {"lost": "database", "doubled": "one by one"}
LOOK = 0.02  # seconds between two looks at a log
PLACES = 3  # commands of a replace behind each of which somebody comes
TURN = 2.0  # seconds for which a writer stands still while another one writes
PATIENCE = 60.0  # seconds that a worker gets for what is left, all its lives together
LATE = 1 - 1 / 1024  # of a gap: where the first read of a simulation stands; exact in binary
EARLIEST, LATEST = (
    3,
    14,
)  # calls after which a life ends: each place of a worker's loop has its turn
# Whoever applies a write, by whichever statement: the database itself notes it.
_JOURNAL = """
CREATE TABLE journal (value TEXT, at REAL);
CREATE TABLE applied (message TEXT PRIMARY KEY);
CREATE TABLE last (message TEXT);
CREATE TABLE versions (id TEXT PRIMARY KEY, message TEXT);
CREATE TRIGGER inserted AFTER INSERT ON cachelab_users BEGIN
  INSERT INTO journal VALUES (new.value, 86400 * (julianday('now') - 2440587.5)); END;
CREATE TRIGGER updated AFTER UPDATE ON cachelab_users BEGIN
  INSERT INTO journal VALUES (new.value, 86400 * (julianday('now') - 2440587.5)); END;
"""


def trial(
    server: Server,
    put: Put,
    work: Work | type[Worker],
    *,
    writes: int = 200,
    rows: int | None = None,
    deaths: int = 10,
    rate: float = 200.0,
) -> pd.DataFrame:
    """Write at a steady rate while a worker applies, and dies again and again.

    The worker runs in a process of its own, that is killed (SIGKILL) before or after one of its
    calls: of the client, or of the database's ``commit``. Each life ends at another call, until all
    places have had their turn, and the next one begins at once. The last one lives until nothing
    is left to do. The database notes by itself, in its own transaction, what is applied.

    Args:
        server: Where the writes wait.
        put: Called with a client, a row's id and a value: acknowledges a write by returning.
        work: One step of the worker, called with its client and a connection of SQLite to tables
            ``cachelab_users(id, value)``, and, all empty, ``applied(message)``, ``last(message)``
            and ``versions(id, message)``.
            It returns something true if it found work. Its source is taken to the other process,
            with that of all that it uses of its own module. `Worker` stands for the package's own
            one, for what `WriteBehind` writes by its default name.
        writes: How many there are.
        rows: How many rows they go to, in turn; by default each write has its own.
        deaths: How often the worker dies.
        rate: Writes a second.

    Returns:
        DataFrame(number, id, acknowledged, applied, times, late), a row for each write.
        acknowledged, applied: seconds since the start; applied is NaN for a write that never was,
        and the first time for one that was applied more than once, ``times`` in all. late: it has
        overwritten a newer one.

    Raises:
        CachelabError: The worker raised, or found no end.
    """
    writes = _check.whole("writes", writes, least=1)
    rows = writes if rows is None else _check.whole("rows", rows, least=1)
    deaths = _check.whole("deaths", deaths, least=0)
    rate = _check.number("rate", rate, above=0)
    client, acknowledged = connect(server.url, timeout=5), []
    with _database() as path, _worker(server, path, work, deaths) as finish:
        start = time.time()
        for number in range(writes):
            time.sleep(max(0.0, start + number / rate - time.time()))
            put(client, f"user-{number % rows}", str(number))
            acknowledged.append((number, f"user-{number % rows}", time.time() - start))
        finish()
        journal = _read(path)
    df = pd.DataFrame(acknowledged, columns=COLUMNS[:3])
    newest = journal.groupby(journal["number"] % rows)["number"].cummax()
    late = df["number"].isin(journal["number"][journal["number"] < newest])
    seen = journal.groupby("number")["at"].agg(applied="min", times="size")
    df = df.join(seen.assign(applied=seen["applied"] - start), on="number")
    return df.assign(times=df["times"].fillna(0).astype(int), late=late)


def counts(run: pd.DataFrame) -> dict[str, int]:
    """Count what became of the writes of a `trial`.

    Returns:
        {"acknowledged", "applied", "lost", "doubled", "late"}. lost: never applied, nor any later
        write to its row. doubled: applied more than once. late: written over a newer one.
    """
    return {
        "acknowledged": len(run),
        "applied": int((run["times"] > 0).sum()),
        "lost": int(_lost(run).sum()),
        "doubled": int((run["times"] > 1).sum()),
        "late": int(run["late"].sum()),
    }


def chart(run: pd.DataFrame, form: str, name: str | None = None) -> Axes:
    """Draw a `trial`: how many writes were acknowledged, applied and lost by each moment."""
    seen = counts(run)
    spans = {
        "acknowledged": run["acknowledged"],
        "applied": run["applied"].dropna(),
        "lost": run["acknowledged"][_lost(run)],
    }
    lines = [_steps(what, times) for what, times in spans.items()]
    df, end = pd.concat(lines), max(run["acknowledged"].max(), run["applied"].max())
    ends = df.groupby("what", sort=False)["writes"].max()
    df = pd.concat([df, ends.reset_index().assign(at=end)])
    title = f"{form}: {seen['lost']} of {len(run)} writes lost, {seen['doubled']} applied twice"
    return charts.timeline(
        df,
        "at",
        "writes",
        "what",
        title=title,
        steps=True,
        roles=ROLES,
        ylim=(0, 1.05 * len(run)),
        xlabel="seconds since the start",
        ylabel="writes so far",
        name=name,
    )


def in_a_process(function: Callable[..., object], *arguments: str) -> int:
    """Call a function in a process of its own and return how that ended, negative for a signal.

    What it uses is taken along as `trial` does.
    """
    with tempfile.TemporaryDirectory(prefix="cachelab-work-") as folder:
        process = _started(_carried(function, folder) | {"arguments": arguments})
        process.communicate(timeout=PATIENCE)
    return process.returncode


def source(function: Callable[..., object]) -> str:
    """Return the source of a function and of all that it uses of its own module.

    That is functions, plain values and imports.

    Raises:
        CachelabError: It uses something of another kind, such as a client.
    """
    parts: dict[str, str] = {}
    _gather(function, parts)
    return "\n\n".join(reversed(parts.values()))


@dataclass(frozen=True)
class PutTrials:
    """The trials of a put: something comes between its steps, and cache and database are compared.

    Args:
        client: Of the server that the values are cached on.
        prefix: What stands before an id in a key.
        put: Called with an id and a value; what is tried. It writes by ``database.put``.
        database: Where the rows are.
    """

    client: redis.Redis
    prefix: str
    put: Write
    database: UserDatabase

    def sentences(self) -> dict[str, Callable[[], bool]]:
        """Return {sentence: callable}, as `exercise.check` takes them."""
        return {
            "the next read gives the new value": self._is_read,
            "if the database refuses, the caller is told and readers get what it has": self._fails,
            "a reader who comes before the commit leaves nothing old": self._is_read_before,
            "a writer who comes before the commit leaves nothing else": lambda: self._meets(True),
            "nor does one who comes right after it": lambda: self._meets(False),
            "nor one who comes when you have asked the database again": self._meets_a_look,
        }

    def _is_read(self) -> bool:
        id = self._row()
        self.put(id, "new")
        return self._holds(id, read="new")

    def _fails(self) -> bool:
        def refuses(id: str, value: str) -> None:
            raise ConnectionRefusedError

        id, told = self._row(), False
        with patch.object(self.database, "put", refuses):
            try:
                self.put(id, "new")
            except Exception:  # of whichever kind
                told = True
        if not told:
            raise AssertionError("the caller takes it for done")
        return self._holds(id, read="old")

    def _is_read_before(self) -> bool:
        commit = self.database.put

        def read_and_commit(id: str, value: str) -> None:
            self._read(id)
            commit(id, value)

        id = self._row()
        with patch.object(self.database, "put", read_and_commit):
            self.put(id, "new")
        return self._holds(id, read="new")

    def _meets(self, before: bool) -> bool:
        """Ben writes when Ada has come to her commit, or has just committed."""
        commit, come = self.database.put, list[str]()

        def ben_comes(id: str, value: str) -> None:
            come.append(value)
            if value == "ada" and before:
                ben.come()
            commit(id, value)
            if value == "ada" and not before:
                ben.come()

        id = self._row()
        ben = _Ben(lambda: self.put(id, "ben"))
        with patch.object(self.database, "put", ben_comes):
            self.put(id, "ada")
            ben.end()
        if "ben" not in come:
            raise AssertionError("ben's write came to no commit, and he was not told")
        return self._holds(id)

    def _meets_a_look(self) -> bool:
        """Ben writes when Ada has asked the database for what she has committed."""
        look = self.database.get

        def ben_comes(id: str) -> str | None:
            value = look(id)
            if value == "ada":
                ben.come()
            return value

        id = self._row()
        ben = _Ben(lambda: self.put(id, "ben"))
        with patch.object(self.database, "get", ben_comes):
            self.put(id, "ada")
            ben.end()
        return self._holds(id)

    def _row(self) -> str:
        id = f"user-{uuid.uuid4().hex[:8]}"
        self.database.put(id, "old")
        self._read(id)
        return id

    def _read(self, id: str) -> str | None:
        """Look, load and store, as in notebook 03."""
        value = self.client.get(self.prefix + id)
        if value is None and (value := self.database.get(id)) is not None:
            self.client.set(self.prefix + id, value, ex=60)
        return None if value is None else str(value)

    def _holds(self, id: str, read: str = "") -> bool:
        cached, stored = self.client.get(self.prefix + id), self.database.get(id)
        if cached not in (None, stored):
            raise AssertionError(f"the cache says {cached!r}, the database {stored!r}")
        if read and (seen := self._read(id)) != read:
            raise AssertionError(f"a read gives {seen!r}")
        return True


class _Ben:
    """Another writer, who comes once; who has him wait, behind a lock say, goes on before him."""

    def __init__(self, write: Callable[[], object]):
        self._write = write
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def come(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
            self._thread.join(TURN)

    def end(self) -> None:
        """Wait for him, if he has come, and raise what his write raised."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            self._write()
        except Exception as error:
            self._error = error


@dataclass(frozen=True)
class ReplaceTrials:
    """The trials of a refresh's last step, which replaces an entry ``token|value`` that it saw.

    Args:
        client: Of the server that the entry is on.
        key: Of the entry; it is written anew before each trial.
        replace: Called with client, key, the token that was seen, the new value, and milliseconds.
    """

    client: redis.Redis
    key: str
    replace: Callable[[redis.Redis, str, str, str, int], object]

    def sentences(self) -> dict[str, Callable[[], bool]]:
        """Return {sentence: callable}, as `exercise.check` takes them."""
        return {
            "an entry that nobody touched is replaced": lambda: self._left()[1] == "v2",
            "each new entry has a token of its own, and an end": self._is_an_entry,
            "what was invalidated stays away": lambda: self._stays(self._delete, ""),
            "what was loaded anew stays, though the value is the same": self._keeps_its_own,
            "so it is when that happens between your commands": self._keeps_it_between,
        }

    def _left(
        self,
        before: Callable[[], object] = lambda: None,
        between: Callable[[], object] = lambda: None,
        times: int = 1,
    ) -> tuple[str, str]:
        """Return token and value of what is left after a replace, with something that came."""
        self.client.set(self.key, "a1|v1", px=2000)
        before()
        with after_first(self.client, between, times):
            self.replace(self.client, self.key, "a1", "v2", 1500)
        token, _, value = str(self.client.get(self.key) or "").partition("|")
        return token, value

    def _is_an_entry(self) -> bool:
        tokens = {self._left()[0], self._left()[0]}
        if len(tokens - {"a1", ""}) != 2:
            raise AssertionError(f"the tokens of two new entries are {', '.join(sorted(tokens))}")
        left = self.client.pttl(self.key)
        if not 0 < left <= 1500:
            raise AssertionError("it has no end" if left == -1 else f"it has {left} ms left")
        return True

    def _keeps_its_own(self) -> bool:
        return self._stays(self._load_anew, "b2|v1")

    def _keeps_it_between(self) -> bool:
        for place in range(1, PLACES + 1):
            self._stays_behind(place, self._load_anew, "b2|v1")
            self._stays_behind(place, self._delete, "")
        return True

    def _stays_behind(self, place: int, came: Callable[[], object], held: str) -> None:
        """Let something come behind one of the commands, if there are so many."""
        left = place

        def pass_by() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                came()

        seen = self._left(between=pass_by, times=place)
        if left == 0:
            self._holds(held, seen)

    def _stays(self, came: Callable[[], object], held: str) -> bool:
        return self._holds(held, self._left(came))

    def _holds(self, held: str, seen: tuple[str, str]) -> bool:
        if "|".join(seen).strip("|") != held:
            raise AssertionError(f"the key then holds {seen[1] or 'nothing'}")
        return True

    def _delete(self) -> None:
        self.client.delete(self.key)

    def _load_anew(self) -> None:
        self.client.set(self.key, "b2|v1", px=2000)


def ages(
    ttl: float, grace: float, load: int, gap: int, dies: float = math.inf, until: int = 4000
) -> list[float]:
    """Return how old each answer of a refresh-ahead is, for a key that is read again and again.

    A simulation, in seconds: no clock runs. Reads come as late as they may, nearly a gap after the
    value was stored. It ends with the first reader who would have to wait.

    Args:
        ttl: Seconds after which the next reader begins a refresh.
        grace: Seconds that the value may be served after that.
        load: Seconds that a load takes.
        gap: Seconds between two reads.
        dies: When the database dies: refreshes that begin then or later never end.
        until: How many seconds are simulated.
    """
    stored, ends = 0.0, math.inf
    seen = list[float]()
    is_loading = False
    for number in range(until // gap):
        at = gap * (number + LATE)
        if at > ends:
            stored, ends, is_loading = ends, math.inf, False
        if at - stored >= ttl + grace:
            break
        seen.append(at - stored)
        if at - stored >= ttl and not is_loading:
            is_loading = True
            ends = at + load if at < dies else math.inf
    return seen


def race(
    write: Write,
    cached: Callable[[str], str | None],
    stored: Callable[[str], str | None],
    rounds: int = 100,
) -> int:
    """Return after how many of some rounds the cache has another value than the database.

    In each round two writers write another value each to one id at the same moment; when both are
    done, cache and database are asked. A cache that has nothing is right.

    Args:
        write: Called with an id and a value.
        cached: What the cache has of an id: None for nothing.
        stored: What the database has.
        rounds: How many.
    """
    wrong, together = 0, threading.Barrier(2, timeout=PATIENCE)

    def one(id: str, value: str) -> None:
        together.wait()
        write(id, value)

    with ThreadPoolExecutor(2) as pool:
        for number in range(_check.whole("rounds", rounds, least=1)):
            id = f"contended-{number}"
            for writing in [pool.submit(one, id, value) for value in ("ada", "ben")]:
                writing.result()
            wrong += cached(id) not in (None, stored(id))
    return wrong


def flood(
    server: Server, put: Callable[[redis.Redis], object], seconds: float, writers: int = 8
) -> tuple[int, pd.DataFrame]:
    """Let writers write as fast as they can, kill the server (-9) amidst, and bring it back.

    What a power cut would take is what the server's log has grown by since its last fsync, and what
    is in the log's buffer. (WAITAOF would ask for it; under everysec some servers, Valkey 9.1 among
    them, answer it too early: redis/redis pull request 13793.) When an fsync was is seen from the
    outside, by the server's own thread for it; where there is no /proc, by the rule: each second.

    Args:
        server: What is killed, and restarted.
        put: One write, called with a client that repeats nothing.
        seconds: How long they write.
        writers: How many threads write, a connection each.

    Returns:
        How many writes were acknowledged, and DataFrame(at, bytes): how much of the log the disk
        did not have, over time; empty where no log is kept.
    """
    seconds = _check.number("seconds", seconds, above=0, high=_check.LONGEST_WAIT)
    told = [0] * _check.whole("writers", writers, least=1)
    barrier = threading.Barrier(len(told) + 1)

    def write_on(writer: int) -> None:
        with redis.Redis.from_url(server.url, socket_timeout=5) as client:
            client.ping()
            barrier.wait()
            with suppress(redis.RedisError):
                while True:
                    put(client)
                    told[writer] += 1

    threads = [threading.Thread(target=write_on, args=[n]) for n in range(len(told))]
    for thread in threads:
        thread.start()
    barrier.wait()
    log, start, seen = _Log(server), time.perf_counter(), list[tuple[float, int]]()
    while (at := time.perf_counter() - start) < seconds:
        if (unsynced := log.unsynced()) is not None:
            seen.append((at, unsynced))
        time.sleep(LOOK)
    server.kill()
    for thread in threads:
        thread.join()
    server.restart()
    return sum(told), pd.DataFrame(seen, columns=["at", "bytes"], dtype=float)


class _Log:
    """A server's log of writes, and how much of it is on the disk, as seen from the outside."""

    def __init__(self, server: Server):
        self._client, self._pid = connect(server.url, timeout=5), server.pid
        policy = self._client.config_get("appendfsync")["appendfsync"]
        self._is_always = policy == "always"
        self._turns, self._synced_at = _fsync_turns(self._pid), time.perf_counter()
        self._size = self._safe = 0

    def unsynced(self) -> int | None:
        """Return how many bytes the disk does not have; None where no log is kept."""
        told = self._client.info("persistence")
        if not told["aof_enabled"]:
            return None
        before, self._size = self._size, int(told["aof_current_size"])
        if self._is_always or before == 0:
            self._safe = self._size
        elif self._has_synced():
            self._safe = before
        return self._size - self._safe + int(told["aof_buffer_length"])

    def _has_synced(self) -> bool:
        """Return whether an fsync has begun since the last look; it ends in less than a half."""
        now, turns, before = time.perf_counter(), _fsync_turns(self._pid), self._turns
        self._turns = turns
        since = now - self._synced_at
        has = since >= 1 if turns is None else turns != before and since >= 0.5
        if has:
            self._synced_at = now
        return has


def _fsync_turns(pid: int) -> int | None:
    """Return how often the thread that syncs a server's log has gone to sleep; None if unknown."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            if (task / "comm").read_text().strip() == "bio_aof":
                status = (task / "status").read_text()
                return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return None


def _lost(run: pd.DataFrame) -> "pd.Series[bool]":
    """Return which writes were never applied, nor any later one to their row."""
    newest = run["number"].where(run["times"] > 0).groupby(run["id"]).transform("max")
    return ~(newest >= run["number"])


def _steps(what: str, times: "pd.Series[float]") -> pd.DataFrame:
    at = [0.0, *sorted(times)]
    return pd.DataFrame({"at": at, "writes": range(len(at)), "what": what})


@contextmanager
def _database() -> Iterator[str]:
    """Make a database with its journal; yield the path of its file."""
    with UserDatabase(latency=0) as users:
        path = users.url.removeprefix("sqlite:///")
        with sqlite3.connect(path) as connection:
            connection.executescript(_JOURNAL)
        connection.close()
        yield path


def _read(path: str) -> pd.DataFrame:
    """Return (number, at): which writes were applied when, in this order."""
    connection = sqlite3.connect(path)
    try:
        journal = connection.execute(
            "SELECT CAST(value AS INTEGER), at FROM journal ORDER BY rowid"
        )
        return pd.DataFrame(journal.fetchall(), columns=["number", "at"])
    finally:
        connection.close()


@contextmanager
def _worker(
    server: Server, path: str, work: Work | type[Worker], deaths: int
) -> Iterator[Callable[[], None]]:
    """Run a worker that dies beside the block; yield what waits until it has done all."""
    places = range(EARLIEST, LATEST + 1)
    when = [places[n % len(places)] for n in range(deaths)]
    with tempfile.TemporaryDirectory(prefix="cachelab-work-") as folder:
        carried = {"program": "", "name": ""} if work is Worker else _carried(work, folder)
        lives = _started(carried | {"url": server.url, "database": path, "deaths": when})
        try:
            yield lambda: _finished(lives)
        finally:
            with suppress(ProcessLookupError):  # the worker is in its group
                os.killpg(lives.pid, signal.SIGKILL)
            lives.communicate()


def _carried(function: Callable[..., object], folder: str) -> dict[str, object]:
    """Write a file that defines a function, and return what `lives` is told of it."""
    program = Path(folder, "work.py")
    program.write_text(source(function), encoding="utf-8")
    return {"program": str(program), "name": function.__name__}


def _started(job: dict[str, object]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "cachelab.lab.faults.lives"]
    lives = subprocess.Popen(
        command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )  # unbuffered: what is read with its first line would be lost to communicate
    assert lives.stdin is not None and lives.stdout is not None
    lives.stdin.write(json.dumps(job).encode() + b"\n")  # no URL stands in a command line
    lives.stdin.flush()
    lives.stdout.readline()  # it has begun
    return lives


def _finished(lives: "subprocess.Popen[bytes]") -> None:
    try:
        told, _ = lives.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise CachelabError(f"The worker did not end within {PATIENCE:g} s") from None
    seen = json.loads(told.splitlines()[-1]) if told else {"error": "nothing was said"}
    if "error" in seen:
        raise CachelabError(f"The worker raised {seen['error']}")


def _gather(function: Callable[..., object], parts: dict[str, str]) -> None:
    assert isinstance(function, FunctionType)
    parts[function.__name__] = inspect.getsource(function)
    for name in _names(function.__code__):
        if name in parts or name not in function.__globals__:
            continue
        value = function.__globals__[name]
        if isinstance(value, ModuleType):
            parts[name] = f"import {value.__name__} as {name}"
        elif isinstance(value, str | int | float | tuple | list | dict | set | frozenset):
            parts[name] = f"{name} = {value!r}"
        elif isinstance(value, FunctionType) and value.__module__ == function.__module__:
            _gather(value, parts)
        elif _is_importable(value) and value.__module__ != function.__module__:
            parts[name] = f"from {value.__module__} import {value.__name__} as {name}"
        else:
            kind = type(value).__name__
            raise CachelabError(
                f"{function.__name__} uses {name}, a {kind}, which cannot go to another process: "
                "let it work with its arguments, functions and plain values"
            )


def _is_importable(value: object) -> bool:
    return inspect.isroutine(value) or inspect.isclass(value)


def _names(code: CodeType) -> list[str]:
    """Return the names that a function uses, and those inside of it."""
    inner = [name for one in code.co_consts if isinstance(one, CodeType) for name in _names(one)]
    return [*code.co_names, *inner]
