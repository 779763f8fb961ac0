"""What belongs to one event loop, such as connections, and cannot be taken to another."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One T for each event loop that comes by, made at its first use there.

    Those of closed loops are dropped when a new loop comes. No lock: each step is atomic, so that
    threads with loops of their own, signal handlers and finalisers may come in at any moment.
    """

    def __init__(self, make: Callable[[], T]):
        self._make = make
        self._by_loop: dict[asyncio.AbstractEventLoop, T] = {}

    def here(self) -> T:
        """Return the one of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            for closed in [known for known in list(self._by_loop) if known.is_closed()]:
                self._by_loop.pop(closed, None)
            return self._by_loop.setdefault(loop, self._make())
        return self._by_loop[loop]

    def all(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """Return each loop that is known, with its own."""
        return list(self._by_loop.items())
