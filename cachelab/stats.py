"""What a cache has counted, and what it says of Redis in the log."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

log = logging.getLogger("cachelab")


@dataclass(frozen=True)
class Stats:
    """What a cache has counted since it was made; each read is exactly one hit or one miss."""

    hits: int
    misses: int
    loads: int  # calls of load or load_many
    waits: int  # reads that waited for another read's load
    refused: int  # stores refused because the load had been overtaken
    errors_by_kind: Mapping[str, int]  # answers that Redis did not give, by the error's name
    breaker: str  # "closed" or "open"

    @property
    def errors(self) -> int:
        """How many answers Redis did not give."""
        return sum(self.errors_by_kind.values())

    @property
    def hit_rate(self) -> float | None:
        """hits / (hits + misses), None before the first read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None


class Counts:
    """The running counts behind `Stats`, for many threads at once."""

    def __init__(self, cache: str):
        self._cache, self._lock = cache, threading.Lock()
        self._counts = dict.fromkeys(("hits", "misses", "loads", "waits", "refused"), 0)
        self._errors: Counter[str] = Counter()

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of the counts of `Stats`."""
        with self._lock:
            self._counts[name] += by

    def failure(self, error: Exception | str) -> None:
        """Count an answer that Redis did not give; log it once if only a change of configuration can mend it."""
        kind = error if isinstance(error, str) else type(error).__name__
        with self._lock:
            first = kind not in self._errors
            self._errors[kind] += 1
        refused = isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError))
        if first and (refused or "DB index" in str(error)):
            log.error("%s goes on without Redis, which refuses it: %s", self._cache, error)

    def stats(self, breaker: str) -> Stats:
        """Return the counts so far."""
        with self._lock:
            return Stats(**self._counts, errors_by_kind=dict(self._errors), breaker=breaker)
