"""The benches of caches that are built otherwise: refresh-ahead, and writes that are direct."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cachelab.lab.contract.trial import Bench, Blocking, given


class AheadBench(Bench):
    """A bench whose caches are built as ``MyCache(url, load, ttl, grace)``.

    What a cache-aside promises within its ttl is tried with half of that as ttl, half as grace.
    """

    name = "refresh-ahead"
    _times: tuple[float, float] | None = None

    def make_ahead(self, ttl: float, grace: float = 60) -> Blocking:
        """Return a new cache over the origin, with these times."""
        self._times = ttl, grace
        try:
            return self.make()
        finally:
            self._times = None

    def arguments(self, url: str, load: Callable, ttl: float, missing_ttl: float) -> Any:
        return url, load, *(self._times or (ttl / 2, ttl / 2))


@dataclass
class Commit:
    """A write that the database is to hold, before it is committed or after.

    Attributes:
        after: Whether the row is there while the write is held.
        error: What it raises in the end, in place of a commit.
        entered: Set when the write has come.
        go: Set to let it go on.
    """

    after: bool = False
    error: Exception | None = None
    entered: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


class WritesBench(Bench):
    """A bench whose caches are built as ``MyWrites(url, load, store, ttl)``.

    Attributes:
        commits: The writes that are held, by their value.
    """

    name = "write-through"

    def __init__(self, *arguments: Any, **options: Any):
        self.commits: dict[str | None, Commit] = {}
        super().__init__(*arguments, **options)

    def hold_commit(
        self, value: str, after: bool = False, error: Exception | None = None
    ) -> Commit:
        """Let the write of a value wait, before or after its commit, or fail."""
        self.commits[value] = Commit(after, error)
        return self.commits[value]

    def store(self, id: str, value: str | None) -> None:
        """Commit one row."""
        held = self.commits.get(value)
        if held:
            held.entered.set()
        if held and not held.after:
            held.go.wait(self.patience)
        if held and held.error:
            given(held.error)
        self.origin.rows[id] = value
        if held and held.after:
            held.go.wait(self.patience)

    def arguments(self, url: str, load: Callable, ttl: float, missing_ttl: float) -> Any:
        return url, load, self._store if self.is_async else self.store, ttl

    def close(self) -> None:
        for held in self.commits.values():
            held.go.set()
        super().close()

    async def _store(self, id: str, value: str | None) -> None:
        await self.loop.run_in_executor(self._calls, self.store, id, value)
