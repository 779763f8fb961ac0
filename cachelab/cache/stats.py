"""What a cache has counted, and what it says of Redis in the log."""

import itertools
import logging
import ssl
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
)

from cachelab import _locks
from cachelab.clients import Away, UnknownService, WrongKind

log = logging.getLogger("cachelab")


@dataclass(frozen=True)
class Stats:
    """What a cache has counted since it was made; each read is exactly one hit or one miss."""

    hits: int
    misses: int
    loads: int  # calls of load or load_many
    waits: int  # reads that waited for another read's load
    refused: int  # stale sets refused: stores of loads that an invalidate or another store overtook
    errors_by_kind: Mapping[str, int]  # answers that Redis did not give, by the error's name
    breaker: str  # "closed" or "open"; on a cluster "open" when that of a shard is

    @property
    def errors(self) -> int:
        """How many answers Redis did not give."""
        return sum(self.errors_by_kind.values())

    @property
    def hit_rate(self) -> float | None:
        """hits / (hits + misses), None before the first read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None


class Tally:
    """A count that threads, signal handlers and finalisers may add to without a lock.

    `one()` adds one; it is C, and atomic. To read such a counter is to add to it, so reads are
    counted as well.

    >>> tally = Tally(); tally.add(3); tally.add(1); int(tally), int(tally)
    (4, 4)
    """

    def __init__(self) -> None:
        self._counter = itertools.count()
        self._reads = 0
        self._lock = _locks.lock()
        self.one: Callable[[], object] = self._counter.__next__

    def add(self, number: int) -> None:
        """Add a number, of which none may get lost."""
        deque(islice(self._counter, number), maxlen=0)

    def __int__(self) -> int:
        with self._lock:
            seen = next(self._counter) - self._reads
            self._reads += 1
        return seen


class Counts:
    """The running counts behind `Stats`, and what is said once.

    Args:
        owner: Who counts, as the log names it.
    """

    def __init__(self, owner: str):
        self.hits = Tally()
        self.misses = Tally()
        self.loads = Tally()
        self.waits = Tally()
        self.refused = Tally()
        self._owner = owner
        self._lock = _locks.lock()
        self._errors: Counter[str] = Counter()
        self._said: set[str] = set()

    def failure(self, error: Exception | str) -> None:
        """Count an answer that Redis did not give; say once what only a person can mend."""
        kind = error if isinstance(error, str) else type(error).__name__
        with self._lock:
            self._errors[kind] += 1
        if isinstance(error, Exception) and (way_out := _way_out(error)):
            said = str(error).rstrip(".")
            self.say(way_out, f"goes on without Redis: {said}. {way_out}", logging.ERROR)

    def say(self, subject: str, sentence: str, level: int = logging.WARNING) -> None:
        """Log a sentence about the owner, once for each subject."""
        if subject not in self._said:
            self._said.add(subject)
            log.log(level, "%s %s", self._owner, sentence)

    def stats(self, breaker: str) -> Stats:
        """Return the counts so far."""
        with self._lock:
            errors = dict(self._errors)
        return Stats(
            hits=int(self.hits),
            misses=int(self.misses),
            loads=int(self.loads),
            waits=int(self.waits),
            refused=int(self.refused),
            errors_by_kind=errors,
            breaker=breaker,
        )


def _way_out(error: Exception) -> str:
    """Return what a person must do about an error that does not pass by itself, "" for others."""
    text = str(error)
    for cause in _causes(error):
        if isinstance(cause, Away):  # of several, what one of them says
            return next(filter(None, map(_way_out, cause.tried.values())), "")
    if isinstance(error, (UnknownService, WrongKind)):
        return "Correct the URL."
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return "Give the URL the user name and the password that this server knows."
    if isinstance(error, NoPermissionError):
        return (
            "The cache needs GET, MGET, GETDEL and EVAL, in it SET, PTTL and PEXPIRE (ACL SETUSER)."
        )
    if isinstance(error, ReadOnlyError):
        return "It is a replica now: the URL must lead to the primary."
    if "DB index" in text:
        return "Choose a database that this server has."
    if isinstance(error, ResponseError) and "unknown command" in text.lower():
        return "The server is too old: the cache needs Redis 7.0 or newer."
    if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
        return "Check the certificates (ssl_ca_certs, ssl_cert_reqs) and that the port speaks TLS."
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
