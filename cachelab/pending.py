"""Deletes that could not reach Redis, kept until they have."""

import threading
from collections.abc import Iterable, Mapping
from itertools import islice
from math import inf

BATCH = 500  # deletes that go in one command


class Pending(dict[str, float]):
    """Ids whose delete has not gone through, and since when, the oldest first.

    longest: seconds after which nothing that was cached before a delete can still be there.

    >>> pending = Pending(longest=60)
    >>> pending.postpone("ada", 0.0); pending.postpone("bob", 10.0); pending.postpone("ada", 65.0); pending
    {'bob': 10.0, 'ada': 65.0}
    >>> pending.postpone("eve", 75.0); pending.due(["eve"])
    {'eve': 75.0, 'ada': 65.0}
    >>> pending.settle({"ada": 0.0, "eve": 75.0}); pending
    {'ada': 65.0}
    """

    def __init__(self, longest: float):
        super().__init__()
        self._longest, self._lock = longest, threading.Lock()

    def due(self, ids: Iterable[str]) -> dict[str, float]:
        """Return the deletes to send next: those of ids, and some of the others."""
        with self._lock:
            return {id: self[id] for id in ids if id in self} | dict(islice(self.items(), BATCH))

    def postpone(self, id: str, since: float) -> None:
        """Keep a delete until it goes through, or until all that it was for has expired."""
        with self._lock:
            self.pop(id, None)
            self[id] = since
            while self[oldest := next(iter(self))] < since - self._longest:
                del self[oldest]

    def settle(self, due: Mapping[str, float]) -> None:
        """Forget deletes that have gone through, unless the id was invalidated once more meanwhile."""
        with self._lock:
            for id, since in due.items():
                if self.get(id, inf) <= since:
                    del self[id]
