"""What is under way: one call's dealings with Redis, one load, and the loads of one event loop."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from time import monotonic

Slots = threading.Semaphore | asyncio.Semaphore  # room for so many loads at once
BUDGET = 0.45  # seconds that Redis may add to one call


class Contact:
    """One call's dealings with Redis: when the call began, and the seconds it may still spend there."""

    __slots__ = ("left", "probe", "started")

    def __init__(self, probe: bool = False):
        self.started, self.left, self.probe = monotonic(), BUDGET, probe


class Flight:
    """One load under way in this process."""

    def __init__(self, done: threading.Event | asyncio.Event):
        self.done = done
        self.outcome: str | Exception | None = None  # JSON, so that each reader gets a value of its own
        self.good_for = -inf  # reads that started later than this must read again
        self.overtaken = False  # by an invalidate of this process
        self.until = 0.0  # when its followers may give it up, once a lease has been seen


@dataclass(eq=False)
class Local:
    """What belongs to one event loop, or to all threads together: room for loads, and flights."""

    make_slots: Callable[[], Slots]
    flights: dict[str, Flight] = field(default_factory=dict)
    slots: dict[int, Slots] = field(default_factory=dict)

    def slots_at(self, depth: int) -> Slots:
        """Return the room for loads, or that for loads within loads: who waits for an inner one holds an outer slot."""
        return self.slots.get(depth) or self.slots.setdefault(depth, self.make_slots())


INSIDE: ContextVar[tuple[Local, ...]] = ContextVar("inside", default=())  # the loads that the caller is part of
