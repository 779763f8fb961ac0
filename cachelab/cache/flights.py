"""What a process has under way: one load for each id, room for loads, and two ways to wait.

A flight is one load that others may wait for, as in Go's package singleflight. The loads of all
threads of a process are one group, those of each event loop another.
"""

import asyncio
import os
import queue
import sys
import threading
import time
import weakref
from _thread import get_ident, start_new_thread
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, TypeVar

from cachelab import _locks
from cachelab._loops import PerLoop
from cachelab.cache.codec import Outcome, attempted, attempted_async
from cachelab.cache.gate import Room, awaiting, awaiting_each, blocking, blocking_each

T = TypeVar("T")
Send = Callable[[], Coroutine[Any, Any, None]]
RESEND = 0.25  # seconds between attempts to send deletes that are pending


class _OfThread(threading.local):
    """The loads that a thread's running code is part of, outermost first.

    No ContextVar: Python 3.11 crashes where the collector, in the middle of its `set`, runs a
    finaliser that sets one, too.
    """

    loading: "Loading" = ()


class Flight:
    """One load under way, and what came of it.

    Attributes:
        outcome: What the load gave, once it has ended; None if it ended without.
        as_of: Reads that began later than this may not take the outcome: it may be too old.
        is_over: Whether it has ended.
        is_invalidated: Whether its id was invalidated here meanwhile.
        waits_for: The flights that its load waits for, having asked the cache for other ids.
        newer: The flight that a follower began which this one was too old for.
        thread: The thread that began it.
    """

    def __init__(self, id: str):
        self.id = id
        self.outcome: Outcome | None = None
        self.as_of = -inf
        self.is_over = False
        self.is_invalidated = False
        self.waits_for: set[Flight] = set()
        self.newer: Flight | None = None
        self.thread = get_ident()
        self.followers: list[Callable[[], object]] = []  # each is called once at the end

    def follow(self, wake: Callable[[], object]) -> bool:
        """Have a follower woken when the flight ends; return False if it has ended already."""
        self.followers.append(wake)
        return not self.is_over

    def succeeded_by(self, flight: "Flight") -> "Flight":
        """Return the flight for readers whom this one was too old for: one that is over, or this.

        So that of a crowd of followers one loads anew, however late the others wake up.
        """
        if self.newer is not None and self.newer.outcome is not None:
            return self.newer
        self.newer = flight
        return flight

    def ends(self, outcome: Outcome | None, as_of: float) -> None:
        """Say what came of it and wake who waits; nothing is locked, and one call is enough."""
        if not self.is_over:
            self.outcome = outcome
            self.as_of = as_of
            self.is_over = True
            for wake in self.followers:
                wake()


@dataclass(frozen=True)
class UnderWay:
    """A load that the running code is part of."""

    group: "Flights"
    flights: dict[str, Flight]


Loading = tuple[UnderWay, ...]  # the loads that the running code is part of, outermost first
_of_thread = _OfThread()
_of_task: ContextVar[Loading] = ContextVar("loading", default=())


class Flights:
    """The flights of one group of readers that can wait for each other.

    Args:
        make_room: A callable that returns room for loads, as the readers' way of waiting has it.
    """

    def __init__(self, make_room: Callable[[], Any]):
        self._make_room = make_room
        self._under_way: dict[str, Flight] = {}
        self._rooms: dict[int, Any] = {}
        self._lock = _locks.lock()

    @property
    def under_way(self) -> int:
        """How many ids are being loaded, or wait for a lease or for room."""
        return len(self._under_way)

    def join(self, ids: Iterable[str]) -> tuple[dict[str, Flight], dict[str, Flight]]:
        """Return the flights of ids that the caller has begun by this, and those of others."""
        mine: dict[str, Flight] = {}
        theirs: dict[str, Flight] = {}
        for id in ids:
            flight = Flight(id)
            found = self._under_way.setdefault(id, flight)
            (mine if found is flight else theirs)[id] = found
        return mine, theirs

    def land(self, flight: Flight, outcome: Outcome | None = None, as_of: float = -inf) -> None:
        """End a flight: its followers go on, who comes from now on begins another."""
        self._leave(flight)
        flight.ends(outcome, as_of)

    def invalidate(self, id: str) -> None:
        """See to it that no read that begins from now on joins a load that began before."""
        flight = self._under_way.get(id)
        if flight is not None:
            flight.is_invalidated = True
            self._leave(flight)

    def land_all(self, flights: Iterable[Flight]) -> None:
        """End flights that have not ended, so that nobody waits for them: without an outcome."""
        for flight in flights:
            if not flight.is_over:
                self.land(flight)

    def room(self, loading: Loading) -> Any:
        """Return the room for loads, or that for loads within loads.

        Who waits for an inner load keeps the place of an outer one: with one room for both, few
        places would be taken by loads that wait for each other.
        """
        depth = sum(load.group is self for load in loading)
        return self._rooms.get(depth) or self._rooms.setdefault(depth, self._make_room())

    def _leave(self, flight: Flight) -> None:
        with self._lock:
            if self._under_way.get(flight.id) is flight:
                self._under_way.pop(flight.id, None)


def own_load(loading: Loading, group: Flights, ids: Iterable[str]) -> Flight | None:
    """Return the flight of one of ids that is being loaded by the very code that asks for it."""
    mine: dict[str, Flight] = {}
    for load in loading:
        if load.group is group:
            mine |= load.flights
    return next((mine[id] for id in ids if id in mine), None)


def wait_in_a_circle(loading: Loading, flight: Flight) -> bool:
    """Say whether a flight waits, through others, for a load that the caller is part of.

    Call it when the caller has been noted as waiting for the flight (`waiting_for`): of two that
    wait for each other at least one then sees it.
    """
    mine = {own for load in loading for own in load.flights.values()}
    seen: set[Flight] = set()
    ahead = [flight]
    while ahead:
        found = ahead.pop()
        if found in mine:
            return True
        if found not in seen:
            seen.add(found)
            ahead.extend(found.waits_for.copy())
    return False


@contextmanager
def waiting_for(loading: Loading, flight: Flight) -> Iterator[None]:
    """Note that the loads that the caller is part of wait for a flight, until the block ends."""
    mine = [own for load in loading for own in load.flights.values()]
    for own in mine:
        own.waits_for.add(flight)
    try:
        yield
    finally:
        for own in mine:
            own.waits_for.discard(flight)


class Blocking:
    """How the synchronous cache waits: its coroutines block, and end without having suspended.

    What it waits with is re-entrant, and loses nothing to an interrupt, as signal handlers and
    finalisers need it.
    """

    call = staticmethod(blocking)
    call_each = staticmethod(blocking_each)
    load = staticmethod(attempted)
    loading: Callable[[], Loading] = partial(getattr, _of_thread, "loading")
    set_loading: Callable[[Loading], object] = partial(setattr, _of_thread, "loading")

    def __init__(self, max_loads: int):
        self._max_loads = max_loads
        self._groups: dict[int, Flights] = {}  # by process: a forked child has no load under way
        self._resending = 0  # the process that has a thread for it

    def group(self) -> Flights:
        process = os.getpid()
        found = self._groups.get(process)
        return found or self._groups.setdefault(process, Flights(self._room))

    def groups(self) -> list[Flights]:
        return [self.group()]

    def is_interrupted(self, flight: Flight) -> bool:
        """Say whether this thread leads a flight, and so would wait for itself."""
        return flight.thread == get_ident() and not flight.is_over

    def is_stranded(self, flight: Flight) -> bool:
        """Say whether the thread that led a flight has ended without ending it."""
        return flight.thread not in sys._current_frames()

    async def each(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        return [await coroutine for coroutine in coroutines]

    async def shielded(
        self, coroutine: Coroutine[Any, Any, None], at_end: Callable[[], None]
    ) -> None:
        try:
            await coroutine
        finally:
            at_end()

    async def follow(self, flight: Flight, seconds: float) -> bool:
        landed: queue.SimpleQueue[None] = queue.SimpleQueue()
        if flight.follow(lambda: landed.put(None)):
            try:
                landed.get(timeout=seconds)
            except queue.Empty:
                pass
        return flight.is_over

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251

    def apart(self, work: Send, at_end: Callable[[], object] = int) -> None:
        """Do work in a thread of its own; RuntimeError where none can be started."""

        def run() -> None:
            try:
                to_its_end(work())
            finally:
                at_end()

        start_new_thread(run, ())  # its exceptions are the interpreter's

    def resend(self, send: Send, is_needed: Callable[[], bool]) -> None:
        """Call send in a thread, four times a second, for as long as it is needed."""
        if self._resending == os.getpid():
            return
        self._resending = os.getpid()

        def work() -> None:
            try:
                while is_needed():
                    time.sleep(RESEND)
                    to_its_end(send())
            finally:
                self._resending = 0
            if is_needed():  # since the last look
                self.resend(send, is_needed)

        try:
            start_new_thread(work, ())  # threading.Thread takes locks that are not re-entrant
        except RuntimeError:  # the interpreter is shutting down
            self._resending = 0

    def _room(self) -> Room:
        return Room(self._max_loads)


class Awaiting:
    """How the asynchronous cache waits: its coroutines suspend, in any event loop."""

    call = staticmethod(awaiting)
    call_each = staticmethod(awaiting_each)
    load = staticmethod(attempted_async)
    loading: Callable[[], Loading] = _of_task.get
    set_loading: Callable[[Loading], object] = _of_task.set

    def __init__(self, max_loads: int):
        self._flights = PerLoop(lambda: Flights(lambda: TaskRoom(max_loads)))
        self._tasks: set[asyncio.Task[Any]] = set()  # a loop itself keeps no strong reference
        self._resending: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    def group(self) -> Flights:
        return self._flights.here()

    def groups(self) -> list[Flights]:
        return [flights for _, flights in self._flights.all()]

    def is_interrupted(self, flight: Flight) -> bool:
        """Say no: in an event loop nothing interrupts a task."""
        return False

    def is_stranded(self, flight: Flight) -> bool:
        """Say no: a task's flights end with it."""
        return False

    async def each(self, coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        return list(await asyncio.gather(*coroutines))

    async def shielded(
        self, coroutine: Coroutine[Any, Any, None], at_end: Callable[[], None]
    ) -> None:
        task = self._task(coroutine)
        task.add_done_callback(lambda _: at_end())  # though it was cancelled before it began
        await asyncio.shield(task)

    async def follow(self, flight: Flight, seconds: float) -> bool:
        landed = asyncio.Event()
        if flight.follow(landed.set):
            try:
                async with asyncio.timeout(seconds):
                    await landed.wait()
            except TimeoutError:
                pass
        return flight.is_over

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def apart(self, work: Send, at_end: Callable[[], object] = int) -> None:
        """Do work in a task of its own; at_end is called though it is cancelled before it began."""
        self._task(work()).add_done_callback(lambda _: at_end())

    def resend(self, send: Send, is_needed: Callable[[], bool]) -> None:
        """Await send in a task, four times a second, for as long as it is needed."""
        loop = asyncio.get_running_loop()
        if loop in self._resending:
            return
        self._resending.add(loop)

        async def work() -> None:
            try:
                while is_needed():
                    await asyncio.sleep(RESEND)
                    await send()
            finally:
                self._resending.discard(loop)

        self._task(work())

    def _task(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class TaskRoom:
    """Places for so many tasks of one event loop at once: the twin of `gate.Room`."""

    def __init__(self, places: int):
        self.queued = 0  # tasks that wait for a place
        self._places = asyncio.Semaphore(places)
        self._inside: set[object] = set()

    async def entered(self, place: object, seconds: float) -> bool:
        """Take a place, waiting for one at most so long; return whether there was one."""
        self.queued += 1
        try:
            async with asyncio.timeout(seconds if self._places.locked() else None):
                await self._places.acquire()
        except TimeoutError:
            return False
        finally:
            self.queued -= 1
        self._inside.add(place)
        return True

    def leave(self, place: object) -> None:
        """Give a place back."""
        if place in self._inside:
            self._inside.discard(place)
            self._places.release()


Waiting = Blocking | Awaiting  # the miss path is written once, over either of them


def to_its_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, since all that it awaits blocks; return its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("a step of the synchronous cache has suspended")
