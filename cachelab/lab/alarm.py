"""An end for calls that do not end: after so many seconds they are stopped from outside."""

import asyncio
import inspect
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, copy_context
from types import FrameType
from typing import Any, TypeVar

# Seconds from one ring to the next.
AGAIN = 0.1

T = TypeVar("T")


class OutOfTime(BaseException):
    """A call took longer than it may; no `except Exception` catches this."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """Call, and return what that returns.

    In the main thread the call is interrupted after so many seconds: by a signal, so what runs in
    C goes on, and so do threads that were started. Elsewhere it is not.

    Raises:
        OutOfTime: The call did not end by itself.
    """
    with _Alarm(seconds) as alarm:
        try:
            outcome = alarm.context.run(call)
        except BaseException as error:
            alarm.check(error)
            raise
        alarm.check()
        return outcome


async def within_async(seconds: float, call: Callable[[], Any]) -> Any:
    """Call in a task of its own, and return what that returns, awaited if it can be.

    After so many seconds the task is cancelled; if it holds up the loop, it is interrupted.

    Raises:
        OutOfTime: The call did not end by itself.
    """
    with _Alarm(seconds) as alarm:
        task = asyncio.create_task(_outcome(call), context=alarm.context)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.wait({task}, timeout=seconds)
            is_late = not task.done()
            for tries in range(10):
                if not task.done():
                    if tries:
                        alarm.insist(tries, _frames(task.get_coro()))
                    task.cancel()
                    await asyncio.wait({task}, timeout=AGAIN)
        except asyncio.CancelledError:
            task.cancel()
            raise
    if is_late:
        raise OutOfTime
    alarm.check()
    outcome, error = task.result()
    if error:
        raise error
    return outcome


async def _outcome(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return what the call returns or raises: a KeyboardInterrupt raised here ends the loop."""
    try:
        outcome = call()
        return (await outcome if inspect.isawaitable(outcome) else outcome), None
    except BaseException as error:
        return None, error


def _frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine that waits, and of those that it awaits."""
    while frame := getattr(coroutine, "cr_frame", None):
        yield frame
        coroutine = coroutine.cr_await


def _is_loop(frame: FrameType) -> bool:
    """Return whether asyncio runs, not who uses it: what is raised there can miss the task."""
    return frame.f_globals.get("__name__", "").startswith("asyncio.")


class _Alarm:
    """Raises OutOfTime in what runs in its context, again and again until the block is left.

    The context tells the learner's code from what else runs in this thread, as the loop does.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.rings = 0
        self.context = copy_context()
        self.context.run(_alarm.set, self)

    def __enter__(self) -> "_Alarm":
        in_main = threading.current_thread() is threading.main_thread()
        self.is_set = in_main and hasattr(signal, "setitimer")
        if self.is_set:
            self.began = time.monotonic()
            self.trace = sys.gettrace()
            self.handler = signal.signal(signal.SIGALRM, self._ring)
            self.timer = signal.setitimer(signal.ITIMER_REAL, self.seconds, AGAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_set:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.handler or signal.SIG_DFL)
        sys.settrace(self.trace)
        left, interval = self.timer
        if left:
            passed = time.monotonic() - self.began
            signal.setitimer(signal.ITIMER_REAL, max(left - passed, 1e-6), interval)

    def check(self, error: BaseException | None = None) -> None:
        """Raise OutOfTime if it rang, whatever became of that; who interrupts is heard first."""
        if self.rings and not isinstance(error, KeyboardInterrupt | SystemExit):
            raise OutOfTime from None

    def insist(self, times: int, frames: Iterable[FrameType]) -> None:
        """Raise in these frames at a line too, for a bare except swallows what a call raises.

        The first time at the first line that runs then, which is in its handler; the next time at
        the second, for it may be in a handler around that.
        """
        if self.is_set:
            self.lines = times
            sys.settrace(self._trace)
            for frame in frames:
                frame.f_trace = self._trace

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if _alarm.get() is not self or not frame or _is_loop(frame):
            return
        if self.rings:
            self.insist(self.rings, [frame for frame, _ in traceback.walk_stack(frame)])
        self.rings += 1
        raise OutOfTime

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if _alarm.get() is not self or _is_loop(frame):
            return None
        if event == "line":
            self.lines -= 1
            if self.lines <= 0:
                raise OutOfTime
        return self._trace


_alarm: ContextVar[_Alarm | None] = ContextVar("_alarm", default=None)
