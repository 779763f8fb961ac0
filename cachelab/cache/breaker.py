"""A circuit breaker: after a few failures in a row, leave the server alone for a while.

The pattern is from Nygard, "Release It!" (2007).
"""

import random
from collections.abc import Callable
from time import monotonic

from cachelab import _locks


class Breaker:
    """Say whether the next call may go through.

    Closed: every call may. After some failures in a row it opens: for a pause at a time no call
    may, then one call is let through as a probe, and its success closes the breaker.

    Args:
        failures: How many failures in a row open it.
        pause: Seconds without calls.
        jitter: Each pause is drawn uniformly from [pause * (1 - jitter), pause], so that the
            processes of a fleet do not probe in step.
        clock: A callable that returns seconds.
        draw: A callable that returns a number from [0, 1).

    >>> now = 0.0
    >>> breaker = Breaker(failures=2, pause=0.5, clock=lambda: now)
    >>> breaker.failed(); breaker.failed(); breaker.state, breaker.allows()
    ('open', False)
    >>> now = 0.6; breaker.allows(), breaker.allows()
    (True, False)
    >>> breaker.succeeded(); breaker.state
    'closed'
    """

    def __init__(
        self,
        failures: int = 5,
        pause: float = 0.5,
        jitter: float = 0.2,
        clock: Callable[[], float] = monotonic,
        draw: Callable[[], float] = random.random,
    ):
        self.is_quiet = True  # closed, and no failure since the last success
        self._limit = failures
        self._pause = pause
        self._jitter = jitter
        self._clock = clock
        self._draw = draw
        self._lock = _locks.lock()
        self._failures = 0
        self._until: float | None = None  # None: closed

    @property
    def state(self) -> str:
        """'closed' or 'open'."""
        return "closed" if self._until is None else "open"

    def allows(self) -> bool:
        """Return True if a call may go through now: when open, one probe in each pause."""
        with self._lock:
            if self._until is None:
                return True
            now = self._clock()
            if now < self._until:
                return False
            self._until = now + self._drawn()
            return True

    def succeeded(self) -> None:
        """Report a call that was answered."""
        with self._lock:
            self._failures = 0
            self._until = None
            self.is_quiet = True

    def failed(self) -> None:
        """Report a call that was not."""
        with self._lock:
            self.is_quiet = False
            self._failures += 1
            if self._failures >= self._limit:
                self._until = self._clock() + self._drawn()

    def _drawn(self) -> float:
        return self._pause * (1 - self._jitter * self._draw())
