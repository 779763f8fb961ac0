"""Exercises: which sentences hold about the reader's code, and where to look next.

They report, and never stop a notebook. Guesses: what somebody guessed, in words.
"""

import asyncio
import inspect
import numbers
from collections import Counter
from collections.abc import Callable, Mapping

from cachelab.lab import alarm, asserts

HELD, NOT_YET = "held     ", "not yet  "

_failed: Counter[str] = Counter()  # how often each exercise was tried since it was last solved


def guessed(guess: object, unit: str = "") -> str:
    """Return "You guessed 5 ms", or "You did not guess".

    Args:
        guess: A number, a text, or a dict, list or tuple of them; what is None was not guessed.
        unit: Follows each number.

    >>> guessed(5, "ms"), guessed(None, "ms")
    ('You guessed 5 ms', 'You did not guess')
    >>> guessed({"the mean": 0.5, "p95": None})
    'You guessed 0.5 for the mean, nothing for p95'
    """
    if isinstance(guess, Mapping):
        parts = [f"{_told(one, unit)} for {name}" for name, one in guess.items()]
        guesses, joint = list(guess.values()), ", "
    else:
        guesses = list(guess) if isinstance(guess, list | tuple) else [guess]
        parts, joint = [_told(one, unit) for one in guesses], " and "
    if all(one is None for one in guesses):
        return "You did not guess"
    return f"You guessed {joint.join(parts)}"


def check(
    name: str,
    sentences: Mapping[str, Callable[[], object]],
    look: str = "",
    limit: float = 5.0,
) -> None:
    """Print one line a sentence, then a last line.

    Args:
        name: The exercise.
        sentences: {sentence: callable}; a sentence is held when its callable returns something
            true. An exception counts as not yet, and its type and message are shown; of an
            AssertionError the message alone, it says what was seen. Coroutine functions need
            ``await check_async(...)``.
        look: Where to look next, shown from the second try on that does not hold.
        limit: Seconds that each callable may take; one that does not end counts as not yet.
            Threads that it starts are not stopped.
    """
    _report(name, {sentence: _seen(call, limit) for sentence, call in sentences.items()}, look)


async def check_async(
    name: str,
    sentences: Mapping[str, Callable[[], object]],
    look: str = "",
    limit: float = 5.0,
) -> None:
    """Print what `check` prints; what a callable returns is awaited if it can be."""
    seen = {sentence: await _seen_async(call, limit) for sentence, call in sentences.items()}
    _report(name, seen, look)


def _told(guess: object, unit: str) -> str:
    if guess is None:
        return "nothing"
    if isinstance(guess, bool):
        return "yes" if guess else "no"
    if isinstance(guess, numbers.Real):
        return f"{guess:,} {unit}".rstrip()
    return str(guess)


def _seen(call: Callable[[], object], limit: float) -> str | None:
    """Return None if the callable holds, else what was seen instead: "" for something false."""

    def outcome() -> str | None:
        value = call()
        if inspect.iscoroutine(value):
            value.close()
            return "an async callable: await check_async(...) instead"
        return None if value else ""

    try:
        return alarm.within(limit, outcome)
    except alarm.OutOfTime:
        return _late(limit)
    except Exception as error:
        return _one_line(error)


async def _seen_async(call: Callable[[], object], limit: float) -> str | None:
    try:
        return None if await alarm.within_async(limit, call) else ""
    except alarm.OutOfTime:
        return _late(limit)
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) and task.cancelling():
            raise  # this cell is interrupted, not what the callable began
        return type(error).__name__
    except Exception as error:
        return _one_line(error)


def _late(limit: float) -> str:
    return f"no end after {limit:g} s"


def _one_line(error: Exception) -> str:
    if isinstance(error, AssertionError) and (seen := str(error).removesuffix(asserts.BUSY)):
        text = "; ".join(seen.split("\n")).removesuffix("; ")
    else:
        text = f"{type(error).__name__}: {error}"
    text = " ".join(text.split()).removesuffix(":")
    return text if len(text) <= 120 else f"{text[:117]}..."


def _report(name: str, seen: dict[str, str | None], look: str) -> None:
    for sentence, instead in seen.items():
        was = f" ({instead})" if instead else ""
        print(f"{HELD if instead is None else NOT_YET}{sentence}{was}")
    held = sum(instead is None for instead in seen.values())
    if held == len(seen):
        _failed.pop(name, None)
        print(f"All {held} held: {name}")
        return
    _failed[name] += 1
    hint = f"Look at: {look or name}" if _failed[name] > 1 else "A second try shows where to look."
    print(f"{held} of {len(seen)} held. {hint}")
