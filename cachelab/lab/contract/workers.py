"""Where a write-behind is tried: rows that remember every write, and workers that are killed."""

import asyncio
import inspect
import itertools
import logging
import os
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Self
from urllib.parse import quote

from cachelab.database import UserDatabase
from cachelab.lab.contract.child import Child, Say, shift_clock
from cachelab.lab.contract.failpoints import REFUSED, Failpoints
from cachelab.lab.contract.trial import Bench, Blocking, Broken, NotApplicable, expect

CLAIM_AFTER = 0.2  # seconds that what a dead worker held may rest
LOOK_EVERY = 0.01  # seconds between two looks at the rows
WHILE = 0.5  # seconds for a worker to end what it is at
STUCK = 8.0  # seconds without a change after which none is waited for
AT_REST = 1.0  # seconds without a write after which a list, which tells nothing, is done
POISON = "poison"  # the value that the database refuses

# Every write of a row is noted in its own transaction, whoever makes it.
_AUDIT = f"""
CREATE TABLE contract_audit (id TEXT, value TEXT);
CREATE TRIGGER contract_inserted AFTER INSERT ON cachelab_users BEGIN
  INSERT INTO contract_audit VALUES (NEW.id, NEW.value); END;
CREATE TRIGGER contract_updated AFTER UPDATE ON cachelab_users BEGIN
  INSERT INTO contract_audit VALUES (NEW.id, NEW.value); END;
CREATE TRIGGER contract_refused BEFORE INSERT ON cachelab_users WHEN NEW.value LIKE '%{POISON}%'
  BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END;
CREATE TRIGGER contract_refused_too BEFORE UPDATE ON cachelab_users
  WHEN NEW.value LIKE '%{POISON}%' BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END;
"""


class Ledger:
    """The rows of a trial in a SQLite file, with every write that was ever made to them."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="cachelab-contract-")
        self._path = f"{self._folder}/rows.db"
        self.refused = f"{self._folder}/refused"
        open(self.refused, "wb").close()
        self.open().close()
        with self._connected() as connection:
            connection.executescript(_AUDIT)

    def open(self) -> UserDatabase:
        """Return the database as the class under trial gets it, one for each process."""
        return UserDatabase(f"sqlite:///{quote(self._path)}", latency=0)

    def rows(self) -> dict[str, str]:
        """Return the value of each row."""
        with self._connected() as connection:
            return dict(connection.execute("SELECT id, value FROM cachelab_users"))

    def twice(self) -> list[str]:
        """Return what was written to a row more than once: no trial puts a value there twice."""
        with self._connected() as connection:
            written = connection.execute(
                """SELECT value FROM contract_audit WHERE value IS NOT NULL
                   GROUP BY id, value HAVING COUNT(*) > 1"""
            )
            return sorted(value for (value,) in written)

    def refusals(self) -> int:
        """Return how many statements were refused."""
        return os.path.getsize(self.refused)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else write."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connected(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self._path, timeout=30, isolation_level=None))


class BehindBench(Bench):
    """A bench whose classes are built as ``MyWrites(url, database, max_length, claim_after)``.

    Attributes:
        ledger: The rows that they write.
        workers: Those that are there.
        mark: What the values begin with that are put, another one for each worker that is to be
            killed or stopped: by it that one knows its messages.
    """

    name, tells = "write-behind", "put"

    def __init__(self, *arguments: Any, **options: Any):
        self.ledger = Ledger()
        self.workers: list[Worker] = []
        self.mark = "put "
        self._count = itertools.count()
        self._changed = 0.0
        try:
            super().__init__(*arguments, **options)
        except BaseException:
            self.ledger.close()
            raise

    def make_behind(self, max_length: int = 1000) -> Blocking:
        """Return a new one, which this process puts by."""
        return Blocking(self, self.built(*self.given(max_length)))

    def given(self, max_length: int = 1000, claim_after: float = CLAIM_AFTER) -> Any:
        """Return what one is built with."""
        return self.place.url, self.ledger.open(), max_length, claim_after

    def called(self) -> Any:
        return self.kind(*self.given()).put("ada", "Ada")

    def put(self, cache: Blocking, values: Mapping[str, str | None]) -> dict[str, str | None]:
        """Put values with the mark, None as it is, and return them as rows."""
        rows = {id: value and self.mark + value for id, value in values.items()}
        for id, value in rows.items():
            cache.put(id, value)
        return rows

    def put_elsewhere(self, id: str, value: str, hours: int) -> None:
        """Put a value by a process of its own, whose clock is so many hours off."""

        def put(say: Say) -> None:
            shift_clock(hours)
            asyncio.run(put_here())
            say("put")

        async def put_here() -> None:
            if inspect.isawaitable(done := self.kind(*self.given()).put(id, value)):
                await done

        self.in_a_child(put)

    def reading(self) -> Blocking:
        """Return a new one that reads, or leave the trial."""
        made = self.make_behind()
        if not hasattr(made.cache, "get"):
            raise NotApplicable("a write-behind without get")
        return made

    def warm(self) -> None:
        """Have a message applied by the only worker that is there, so that it has begun to work."""
        number = next(self._count)
        id, text = f"warm {number}", f"text {number}"
        self.make_behind().put(id, text)
        wanted = {id: text}
        self.until(lambda: not self._wrong(wanted), lambda: f"no worker applies {wanted}")

    def worker(self, *acts: tuple[str, str], claim_after: float = CLAIM_AFTER) -> "Worker":
        """Return a worker, in a process of its own until the block ends.

        acts: Where it is killed or stopped, in this order, each once: one of `POINTS`, and
            "SIGKILL" or "SIGSTOP". It is at what is put when the block has begun.
        """
        if acts:
            self.mark = f"mark {next(self._count)}: "
        return Worker(self, acts, claim_after)

    def settle(self, wanted: Mapping[str, str | None]) -> None:
        """Have one more worker do what is left, and see the rows that were put, each written once.

        wanted: The value of each row, None for one that is not to be there.
        """
        with self.worker():
            self.wait_for(wanted)
        twice = self.ledger.twice()
        expect(not twice, f"{len(twice)} values were written twice: {twice[:3]}")

    def wait_for(self, wanted: Mapping[str, str | None]) -> None:
        """Wait until the rows are what was put, and nothing waits; give up when nothing does."""

        def are_there() -> bool:
            waiting = self.waiting()  # before the rows: what is acknowledged is in them
            wrong = self._wrong(wanted)
            if wrong and self._is_over(waiting):
                raise Broken(wrong)
            return not wrong and not waiting

        self.until(
            are_there, lambda: f"{self._left()}; {self._wrong(wanted) or 'the rows are right'}"
        )

    def work_through(self) -> None:
        """Wait until no message waits."""
        self.until(lambda: self._is_over(self.waiting()), self._left)

    def until(self, condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        """Wait for a condition; give up when for a while nothing has changed.

        otherwise: Tells what is the case then.
        """
        began = self._changed = time.monotonic()
        state: object = None
        while not condition():
            for worker in self.workers:
                worker.see()
            before, state = state, (self.ledger.rows(), self.ledger.refusals(), self.waiting())
            now = time.monotonic()
            if state != before:
                self._changed = now
            if now > min(self._changed + STUCK, began + self.patience):
                raise Broken(f"after {now - began:.0f} s {otherwise()}")
            time.sleep(LOOK_EVERY)

    def _is_over(self, waiting: int | None) -> bool:
        """Say whether no message waits; where no group can tell, whether all is at rest."""
        return waiting == 0 or waiting is None and time.monotonic() > self._changed + AT_REST

    def _left(self) -> str:
        return f"{self.waiting()} messages wait still"

    def _wrong(self, wanted: Mapping[str, str | None]) -> str:
        """Return what is wrong with the rows, "" if nothing is."""
        rows = self.ledger.rows()
        wrong = [id for id, value in wanted.items() if rows.get(id) != value]
        if not wrong:
            return ""
        such = f"{wrong[0]!r}: {rows.get(wrong[0])!r}, not {wanted[wrong[0]]!r}"
        return f"{len(wrong)} of {len(wanted)} rows are wrong, such as {such}"

    def waiting(self) -> int | None:
        """Return how many messages are not acknowledged, None where no group can tell."""
        counts = []
        for key, kind in self._kept():
            if kind == "stream":
                last = self.client.xinfo_stream(key)["last-generated-id"]
                counts += [
                    group["pending"] or int(group["last-delivered-id"] != last)
                    for group in self.client.xinfo_groups(key)
                    if group["name"] != "contract"
                ]
        return sum(counts) if counts else None

    def streams(self) -> list[str]:
        """Return the streams that have a group: others keep what is set aside."""
        found = [key for key, kind in self._kept() if kind == "stream"]
        return [key for key in found if self.client.xinfo_groups(key)]

    def set_aside(self, text: str) -> bool:
        """Say whether a text stands in anything that Redis keeps, but for what waits."""
        read = {"stream": "XRANGE {} - +", "hash": "HGETALL {}", "list": "LRANGE {} 0 -1"}
        read |= {"string": "GET {}", "set": "SMEMBERS {}", "zset": "ZRANGE {} 0 -1"}
        waiting = self.streams()
        return any(
            text in repr(self.client.execute_command(*read[kind].format(key).split()))
            for key, kind in self._kept()
            if key not in waiting
        )

    def close(self) -> None:
        super().close()
        self.ledger.close()

    def _kept(self) -> list[tuple[str, str]]:
        """Return each key that is there, with its type."""
        return [(key, self.client.type(key)) for key in self.client.scan_iter()]


class Worker:
    """A process that calls ``work()`` again and again, until it is killed or the block ends."""

    def __init__(self, trial: BehindBench, acts: Iterable[tuple[str, str]], claim_after: float):
        self._trial, self._acts, self._claim_after = trial, acts, claim_after
        self._was_stopped = self._is_over = False

    def __enter__(self) -> Self:
        self._trial.place.on_each("SCRIPT", "FLUSH")  # their texts tell which of them acknowledge
        self._parent = os.getpid()
        self._child = Child(self._work)
        self._expect("built", "is ready to work")
        self._trial.workers.append(self)
        if self._acts:
            self._trial.warm()
        return self

    def __exit__(self, *_: object) -> None:
        """Let it end what it is at, for a moment: a kill is tried where it is meant."""
        self._trial.workers.remove(self)
        with suppress(TimeoutError, EOFError, ProcessLookupError):
            os.kill(self._child.pid, signal.SIGTERM)
            while True:
                self._hear(WHILE)
        self._child.kill()

    def ended(self) -> bool:
        """Wait until it was killed, or has nothing left to do; say whether it was killed."""
        until = time.monotonic() + self._trial.patience
        is_through = False
        try:
            while not is_through and time.monotonic() < until:
                is_through = self._trial.waiting() == 0
                with suppress(TimeoutError):
                    self._hear(WHILE if is_through else LOOK_EVERY)
        except EOFError:
            return self._child.kill() == -signal.SIGKILL
        return False

    def see(self) -> None:
        """See that it has not ended by itself."""
        if self._acts:
            return
        try:
            self._hear(0)
        except TimeoutError:
            pass
        except EOFError:
            raise Broken(f"a worker has ended, with status {self._child.kill()}") from None

    def stopped(self) -> None:
        """Wait until it was stopped at its point."""
        self._expect("stopped", "comes to write what was put")
        os.waitpid(self._child.pid, os.WUNTRACED)  # it says so a moment before

    def resume(self) -> None:
        """Let it go on from where it was stopped."""
        os.kill(self._child.pid, signal.SIGCONT)

    def worked(self) -> None:
        """Wait until it has done what it was stopped at."""
        self._expect("worked", "goes on when it was stopped for a while")

    def _expect(self, word: str, what: str) -> None:
        try:
            while self._hear(self._trial.patience) != word:
                pass
        except TimeoutError:
            raise Broken(f"no worker {what} within {self._trial.patience:g} s") from None
        except EOFError:
            raise Broken(f"no worker {what}: it ends") from None

    def _hear(self, seconds: float) -> str:
        heard = self._child.hear(seconds)
        expect(not heard.startswith("failed"), f"a worker cannot be built: {heard[7:]}")
        return heard

    def _work(self, say: Say) -> None:
        """Build the class in this process, and work."""
        logging.disable(logging.CRITICAL)  # what it says is no part of a verdict
        acts = [(point, partial(self._reached, say, act)) for point, act in self._acts]
        Failpoints(acts, self._trial.mark, self._trial.ledger.refused)
        loop = asyncio.new_event_loop()

        async def build() -> Any:
            return self._trial.kind(*self._trial.given(claim_after=self._claim_after))

        try:
            made = loop.run_until_complete(build())
        except BaseException as error:
            say(f"failed {error!r}")
            raise
        signal.signal(signal.SIGTERM, self._end)
        say("built")
        while os.getppid() == self._parent and not self._is_over:
            try:
                if inspect.isawaitable(done := made.work()):
                    loop.run_until_complete(done)
            except Exception:
                time.sleep(2 * LOOK_EVERY)  # it is called again
            if self._was_stopped:
                say("worked")
                self._was_stopped = False
            time.sleep(LOOK_EVERY / 5)

    def _end(self, *_: object) -> None:
        self._is_over = True

    def _reached(self, say: Say, act: str) -> None:
        if act == "SIGSTOP":
            self._was_stopped = True
            say("stopped")
        # to this very thread, which would go on for a moment if another took the signal
        signal.pthread_kill(threading.get_ident(), signal.Signals[act])
