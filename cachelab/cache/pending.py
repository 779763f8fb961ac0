"""Deletes that could not reach Redis, kept until they have."""

from collections.abc import Iterable, Mapping
from itertools import islice
from math import inf
from time import monotonic

from cachelab import _locks

BATCH = 500  # deletes that go at a time


class PendingDeletes(dict[str, float]):
    """Ids whose delete has not gone through, and since when, the oldest first.

    A finaliser or a signal handler may add one in the middle of any call, so each method works on
    a copy, and what it takes away by mistake it puts back.

    Args:
        longest: Seconds after which nothing that was cached before a delete can still be there.

    >>> pending = PendingDeletes(longest=60)
    >>> pending.add("ada", 0.0); pending.add("bob", 10.0); pending.add("ada", 65.0); list(pending)
    ['bob', 'ada']
    >>> pending.add("eve", 75.0); pending.due(["eve"], now=75.0)
    {'eve': 75.0, 'ada': 65.0}
    >>> pending.sent({"ada": 0.0, "eve": 75.0}); list(pending)
    ['ada']
    """

    def __init__(self, longest: float):
        super().__init__()
        self._longest = longest
        self._lock = _locks.lock()

    def add(self, id: str, since: float | None = None) -> None:
        """Keep a delete until it goes through, or until all that it was for has expired."""
        now = monotonic() if since is None else since
        with self._lock:
            self.pop(id, None)
            self[id] = now

    def due(self, ids: Iterable[str], now: float | None = None) -> dict[str, float]:
        """Return the deletes to send next: those of ids, and some of the others."""
        oldest = (monotonic() if now is None else now) - self._longest
        since = self.copy()
        self.sent({id: at for id, at in since.items() if at < oldest})
        wanted = {id: since[id] for id in ids if since.get(id, -inf) >= oldest}
        others = ((id, at) for id, at in since.items() if at >= oldest)
        return wanted | dict(islice(others, BATCH))

    def sent(self, due: Mapping[str, float]) -> None:
        """Forget deletes that have gone through, unless the id was invalidated once more since."""
        for id, since in due.items():
            with self._lock:
                found = self.pop(id, None)
                if found is not None and found > since:
                    self.setdefault(id, found)
