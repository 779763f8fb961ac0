"""A circuit breaker: after a few failures in a row, leave the server alone for a while (Nygard, Release It!)."""

import threading
from collections.abc import Callable
from time import monotonic


class Breaker:
    """Say whether the next call may go through.

    Closed: every call may. After ``failures`` failures in a row it opens: for ``pause`` seconds at a time no call may, then
    one call is let through as a probe, and its success closes the breaker. clock: a callable that returns seconds.

    >>> now = 0.0
    >>> breaker = Breaker(failures=2, pause=0.5, clock=lambda: now)
    >>> breaker.failed(); breaker.failed(); breaker.state, breaker.allows()
    ('open', False)
    >>> now = 0.6; breaker.allows(), breaker.allows()
    (True, False)
    >>> breaker.succeeded(); breaker.state
    'closed'
    """

    def __init__(self, failures: int = 5, pause: float = 0.5, clock: Callable[[], float] = monotonic):
        self._limit, self._pause, self._clock = failures, pause, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._until: float | None = None  # None: closed

    @property
    def state(self) -> str:
        """'closed' or 'open'."""
        return "closed" if self._until is None else "open"

    def allows(self) -> bool:
        """Return True if a call may go through now; when open, that call is the one probe of its pause."""
        if self._until is None:
            return True
        with self._lock:
            if self._until is None:
                return True
            now = self._clock()
            if now < self._until:
                return False
            self._until = now + self._pause
            return True

    def succeeded(self) -> None:
        """Report a call that was answered."""
        if self._failures:
            with self._lock:
                self._failures, self._until = 0, None

    def failed(self) -> None:
        """Report a call that was not."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._limit:
                self._until = self._clock() + self._pause
