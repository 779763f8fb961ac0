"""The worker of write-behind: it brings messages from the stream to their rows, each one once.

In this order: read, commit, invalidate, acknowledge. Wherever a worker dies, its messages are
still its own in the stream; another takes them over, and finds in the database which of them have
been applied. Any number of workers may share a stream.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from cachelab import _check
from cachelab._extras import need
from cachelab.cache import CacheAside
from cachelab.clients import check_client, shards
from cachelab.database import UserDatabase
from cachelab.errors import InvalidationPending, RedisUnavailable
from cachelab.writes.rows import Rows, Store, is_away
from cachelab.writes.stream import (
    ACKNOWLEDGE,
    CLAIM,
    LEAVE,
    RENEW,
    SET_ASIDE,
    UNCOUNT,
    Message,
    Stream,
    entries,
    held,
    message,
    patience,
)

log = logging.getLogger("cachelab")

IDLE = 1.0  # seconds that `run` waits for messages at a time
PAUSE = (0.05, 2.0)  # seconds between tries while the database is away: the first, the longest
RETRY = 0.1  # seconds before a message that failed is tried again; twice as long each time
MOST_BATCH = 1000  # messages, whose ids one script takes
SUSPECT = 2  # deliveries after which a message is tried alone: its workers have died, or it raised
DEATHS = 2  # as many times `tries` a worker may end in a try: that may be somebody else's doing
NEXT = "The messages stay in the stream."


@dataclass(frozen=True)
class WorkerStats:
    """What became of messages: each that was read or claimed is counted once where it ended."""

    read: int = 0  # new ones
    claimed: int = 0  # taken over from a worker that has not been heard of
    applied: int = 0  # their rows were written
    superseded: int = 0  # a newer write of the row came first
    repeated: int = 0  # had been applied before, by a worker that could not say so
    failed: int = 0  # tries that raised, of a message that will be tried again
    aside: int = 0  # set aside with their error

    def __sub__(self, other: "WorkerStats") -> "WorkerStats":
        """Return what was counted since."""
        names = [field.name for field in fields(self)]
        return WorkerStats(**{one: getattr(self, one) - getattr(other, one) for one in names})


class Worker:
    """Bring the writes of a `WriteBehind` to the database, in batches of one transaction each.

    A message is acknowledged after its row is committed and the cache has let go of the old value.
    While the database is away or locked nothing is lost and nothing is set aside, however long
    that lasts. A message that fails by itself is tried alone, and set aside with its error after
    ``tries``, at {name}:aside, so that it holds up nobody. The same happens to a message in whose
    tries, alone, twice as many workers died.

    What a server had acknowledged and a fail-over has lost (``WriteBehind(replicas=...)`` prevents
    that) a worker that holds it writes all the same. Should the new server's clock be behind the
    old one's, it may come after a newer write of its row, and stay.

    One object is for one thread; for several workers make several, in one process or in many.

    Args:
        client: A redis.Redis or RedisCluster, best from `connect`.
        database: A UserDatabase, or the URL of one, which is opened at once. The tables
            cachelab_applied and cachelab_versions are made in it. Of each row that was ever
            written through the stream the latter keeps the latest message.
        name: The name of the stream, as `WriteBehind` has it.
        group: Each group gets every message; the workers of one group share them.
        consumer: What this worker is called in the group; by default a new name each time.
        batch: Messages in a transaction at most.
        claim_after: Seconds after which the messages of a worker that has not been heard of are
            taken over; longer than a transaction takes.
        tries: How often a message is tried that fails by itself.
        cache: A CacheAside that is told of each row that was written.
        store: A function of an SQLAlchemy connection, an id and its value, None for a row to
            delete, which writes one row and leaves the commit to the worker; by default
            `cachelab_users`, where what is no text stands as JSON.
        keep: Seconds for which the database remembers ids of messages that are gone from the
            stream, by the stream's clock.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
        CachelabError: The database of a URL cannot be opened.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        database: UserDatabase | str,
        name: str = "writes",
        group: str = "rows",
        consumer: str | None = None,
        batch: int = 100,
        claim_after: float = 10.0,
        tries: int = 5,
        cache: CacheAside[Any] | None = None,
        store: Store | None = None,
        keep: float = 3600.0,
    ):
        need("Worker", "database")
        check_client(client, "sync", "connect")
        self.stream = Stream(client, name)
        self.group = _check.identity("group", group)
        if " " in group:
            raise ValueError(f"group must be without spaces, not {group!r}")
        self.consumer = _check.identity("consumer", _new_name() if consumer is None else consumer)
        self._batch = self._asked = _check.whole("batch", batch, least=1, most=MOST_BATCH)
        self._claim_ms = _check.milliseconds("claim_after", claim_after)
        self._tries = _check.whole("tries", tries, least=1, most=1000)
        self._keep_ms = round(1000 * _check.wait("keep", keep))
        if cache is not None and not isinstance(cache, CacheAside):
            raise TypeError(f"cache must be a CacheAside, not {cache!r}")
        if store is not None and not callable(store):
            raise TypeError(f"store must be a function, not {store!r}")
        self._cache = cache
        if not isinstance(database, UserDatabase):
            database = UserDatabase(_check.text("database", database), latency=0, connections=1)
        self._rows = Rows(database, name, group, self._latest, store)
        self._block = patience(client) / 2  # seconds: a reply that comes later is a timeout
        self._has_group = False
        self._held: dict[str, Message] = {}  # what this worker has not acknowledged, in order
        self._alone: dict[str, float] = {}  # what is tried by itself, and when again
        self._claims_at = self._prunes_at = 0.0
        self._cursor = "0-0"
        self._trimmed: list[bytes] = []  # below what the stream is trimmed, and its clock
        self._stats = WorkerStats()
        self._troubles: set[str] = set()

    @property
    def stats(self) -> WorkerStats:
        """The counts so far."""
        return self._stats

    def step(self, wait: float = 0.0) -> WorkerStats:
        """Bring one batch to the database: what is left of earlier ones, claimed ones, new ones.

        Args:
            wait: Seconds to wait for a message where there is none, cut to half of the client's
                timeout.

        Returns:
            What became of it.

        Raises:
            RedisUnavailable: Redis does not answer, or refuses. Call again.
            Exception: What the database raises while it is away or locked. Call again: the
                messages are kept, and tried first.
        """
        before = self._stats
        batch = self._next(wait)
        together = [one for one in batch if one.message_id not in self._alone]
        if together and not self._brought(together):
            self._alone |= dict.fromkeys((one.message_id for one in together), 0.0)
        alone = [one for one in batch if one.message_id in self._alone]
        for one, tries in self._by_tries(alone):
            self._try_alone(one, tries)
        self._prune()
        return self._stats - before

    def run(self, stop: threading.Event | None = None) -> WorkerStats:
        """Work until told to stop; a batch that was begun is brought to its end.

        Args:
            stop: Ends it when set. Without one SIGTERM and SIGINT end it, in the main thread.

        Returns:
            The counts so far.
        """
        pause = PAUSE[0]
        with _signals(stop) as stop:
            while not stop.is_set():
                try:
                    self.step(IDLE)
                except Exception as error:
                    if not isinstance(error, RedisUnavailable) and not is_away(error):
                        raise
                    self._say(error)
                    stop.wait(pause)
                    pause = min(2 * pause, PAUSE[1])
                    with suppress(RedisUnavailable):
                        self._renew()
                else:
                    pause = PAUSE[0]
                    self._troubles.clear()
            with suppress(RedisUnavailable):
                self._leave(self.consumer)
        return self._stats

    async def run_async(self, stop: threading.Event | None = None) -> WorkerStats:
        """Do what `run` does in a thread of its own; a cancelled one ends its batch first."""
        stop = stop or threading.Event()
        working = asyncio.ensure_future(asyncio.to_thread(self.run, stop))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.set()
            await working
            raise

    def _next(self, wait: float) -> list[Message]:
        """Return messages to try: fewer where the reply with more of them did not come in time."""
        try:
            batch = self._due() or self._claim() or self._read(wait)
        except RedisUnavailable:
            self._asked = max(1, self._asked // 2)
            raise
        self._asked = min(self._asked + 1, self._batch)
        return batch

    def _due(self) -> list[Message]:
        """Return the messages that this worker has from before and may try now."""
        now = time.monotonic()
        return [one for id, one in self._held.items() if self._alone.get(id, 0.0) <= now]

    def _claim(self) -> list[Message]:
        """Take over messages whose worker has not been heard of."""
        if time.monotonic() < self._claims_at:
            return []
        self._make_group()
        terms = self.group, self.consumer, str(self._claim_ms), self._cursor, str(self._asked)
        reply = self._ask(("EVAL", CLAIM, "1", self.stream.stream, *terms))
        if reply is None:
            return []
        self._cursor = reply[0].decode()
        if self._cursor == "0-0":
            self._claims_at = time.monotonic() + self._claim_ms / 4000
            self._acknowledge(())  # trims though nothing comes: a group that held it up may be gone
        found = [message(*entry) for entry in reply[1]]
        found = [one for one in found if one.message_id not in self._held]
        self._count(claimed=len(found))
        suspects = (one.message_id for one in found if one.deliveries > SUSPECT)
        self._alone |= dict.fromkeys(suspects, 0.0)
        return self._keep(found)

    def _read(self, wait: float) -> list[Message]:
        """Read messages that nobody has had yet."""
        self._make_group()
        block_ms = round(1000 * min(wait, self._block))
        blocking = ("BLOCK", str(block_ms)) if block_ms > 0 else ()
        count = ("COUNT", str(self._asked))
        group = ("GROUP", self.group, self.consumer)
        reply = self._ask(
            ("XREADGROUP", *group, *count, *blocking, "STREAMS", self.stream.stream, ">")
        )
        found = entries(reply)
        self._count(read=len(found))
        return self._keep(found)

    def _brought(self, messages: Sequence[Message]) -> bool:
        """Bring messages to their rows and acknowledge them; say whether none of them failed."""
        try:
            self._bring(messages)
        except Exception as error:
            if isinstance(error, RedisUnavailable) or is_away(error):
                raise
            log.debug("a batch of %d failed: %s", len(messages), error)
            return False
        return True

    def _bring(self, messages: Sequence[Message]) -> None:
        came = self._rows.apply(messages)
        self._count(**came._asdict())
        self._invalidate(messages)
        self._acknowledge(messages)
        self._drop(messages)

    def _latest(self, messages: Sequence[Message]) -> list[Message]:
        """Return those of messages that are still the last put of their ids.

        To be asked while the rows are locked: what a row has seen by then that was put later had
        taken their place here before.
        """
        ids = [one.id for one in messages]
        replies = self._ask(("HMGET", self.stream.pending, *ids))
        waiting = [(one, held(reply)) for one, reply in zip(messages, replies, strict=True)]
        return [one for one, last in waiting if last and last.message_id == one.message_id]

    def _try_alone(self, one: Message, tries: int) -> None:
        """Try a message by itself, counted before it is tried: it may end this process."""
        field = f"{self.group} {one.message_id}"
        is_known = tries > 0 and self._rows.knows(one)  # waits, uncounted, for a locked database
        if tries >= DEATHS * self._tries and not is_known:
            self._set_aside(one, f"its worker ended in each of {tries} tries")
            return
        tries = int(self._ask(("HINCRBY", self.stream.tries, field, "1")))
        try:
            self._bring([one])
        except Exception as error:
            if isinstance(error, RedisUnavailable) or is_away(error):
                with suppress(RedisUnavailable):
                    self._ask(("EVAL", UNCOUNT, "1", self.stream.tries, field))
                raise
            if tries >= self._tries:
                self._set_aside(one, f"{type(error).__name__}: {error}")
                return
            self._count(failed=1)
            self._alone[one.message_id] = time.monotonic() + RETRY * 2.0**tries

    def _by_tries(self, messages: list[Message]) -> list[tuple[Message, int]]:
        """Return messages with how often they were tried alone, those of the fewest tries first.

        So that workers that are killed for other reasons do not end the same message each time.
        """
        if not messages:
            return []
        names = [f"{self.group} {one.message_id}" for one in messages]
        tries = self._ask(("HMGET", self.stream.tries, *names))
        pairs = [(one, int(count or 0)) for one, count in zip(messages, tries, strict=True)]
        return sorted(pairs, key=lambda pair: (pair[1], pair[0].order))

    def _invalidate(self, messages: Sequence[Message]) -> None:
        """Tell the cache of each row, of one that a dead worker had written too."""
        if self._cache is None:
            return
        try:
            for id in dict.fromkeys(one.id for one in messages):
                self._cache.invalidate(id)
        except InvalidationPending as error:
            raise RedisUnavailable(f"{error}. {NEXT}") from error

    def _acknowledge(self, messages: Sequence[Message]) -> None:
        """Acknowledge messages, and trim what every group has done with."""
        keys = "3", self.stream.stream, self.stream.pending, self.stream.tries
        ids = [one.message_id for one in messages]
        self._trimmed = self._ask(("EVAL", ACKNOWLEDGE, *keys, self.group, *ids)) or []

    def _prune(self) -> None:
        """Forget, now and then, ids that the stream knows no more, and silent workers."""
        if not self._trimmed or time.monotonic() < self._prunes_at:
            return
        floor, seconds = self._trimmed
        oldest_ms = int(floor.partition(b"-")[0])
        self._rows.prune(min(oldest_ms, 1000 * int(seconds) - self._keep_ms))
        self._leave("")
        self._prunes_at = time.monotonic() + self._keep_ms / 60_000

    def _set_aside(self, one: Message, error: str) -> None:
        keys = "3", self.stream.stream, self.stream.aside, self.stream.tries
        told = self.group, one.message_id, self.stream.name, one.id, one.text, error
        if self._ask(("EVAL", SET_ASIDE, *keys, *told)):
            self._count(aside=1)
            log.error(
                "A write of %r (message %s) was set aside in %s after %d tries: %s",
                *(one.id, one.message_id, self.stream.aside, self._tries, error),
            )
        self._acknowledge([one])
        self._drop([one])

    def _renew(self) -> None:
        """Say that this worker lives and works on its messages; that is no delivery of them."""
        if self._held:
            terms = self.group, self.consumer, *self._held
            self._ask(("EVAL", RENEW, "1", self.stream.stream, *terms))

    def _leave(self, who: str) -> None:
        """Let a consumer leave the group, and silent ones; none that has a message."""
        longest = str(max(self._keep_ms, 10 * self._claim_ms))
        self._ask(("EVAL", LEAVE, "1", self.stream.stream, self.group, who, longest))

    def _make_group(self) -> None:
        """Make the group where it is missing; it begins with the oldest message there is."""
        if not self._has_group:
            create = ("XGROUP", "CREATE", self.stream.stream, self.group, "0", "MKSTREAM")
            self._ask(create, ("BUSYGROUP",))
            self._has_group = True

    def _ask(self, command: tuple[str, ...], ignored: tuple[str, ...] = ("NOGROUP",)) -> Any:
        """Return the reply to a command, None for an error that is ignored; raise for others."""
        try:
            (reply,) = self.stream.send(command)
        except (RedisError, OSError) as error:
            raise self.stream.away(error, NEXT) from error
        if isinstance(reply, ResponseError) and any(one in str(reply) for one in ignored):
            self._has_group = False  # the stream was lost: what it begins with comes next
            return None
        if shards.is_failure(reply):
            raise self.stream.away(reply, NEXT)
        if isinstance(reply, Exception):
            raise self.stream.refused(reply, NEXT)
        return reply

    def _keep(self, messages: list[Message]) -> list[Message]:
        self._held |= {one.message_id: one for one in messages}
        return messages

    def _drop(self, messages: Sequence[Message]) -> None:
        for one in messages:
            self._held.pop(one.message_id, None)
            self._alone.pop(one.message_id, None)

    def _count(self, **more: int) -> None:
        now = {name: getattr(self._stats, name) + count for name, count in more.items()}
        self._stats = replace(self._stats, **now)

    def _say(self, error: Exception) -> None:
        """Log once, until all is well again, what keeps this worker from its work."""
        kind = type(error).__name__
        if kind not in self._troubles:
            self._troubles.add(kind)
            why = (str(error) or kind).splitlines()[0]
            log.warning("The worker of %r waits: %s", self.stream.name, why)


@contextmanager
def _signals(stop: threading.Event | None) -> Iterator[threading.Event]:
    """Yield the event that stops; where none was given, one that SIGTERM and SIGINT set."""
    is_main = threading.current_thread() is threading.main_thread()
    if stop is not None or not is_main:
        yield stop or threading.Event()
        return
    stop = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def end(number: int, frame: Any) -> None:
        stop.set()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, end)
        yield stop
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


def _new_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
