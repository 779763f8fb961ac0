"""What is under way: one call's dealings with Redis, one load, and the loads of one event loop."""

import asyncio
import threading
from dataclasses import dataclass, field
from math import inf
from time import monotonic

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
        self.until = 0.0  # when its followers may give it up


@dataclass
class Local:
    """What belongs to one event loop, or to all threads together: room for loads, and flights."""

    slots: threading.Semaphore | asyncio.Semaphore
    flights: dict[str, Flight] = field(default_factory=dict)
