"""Exercises report and never stop a notebook: which sentences hold about the reader's code, and where to look next."""

import inspect
from collections.abc import Callable, Mapping

HELD, NOT_YET = "held     ", "not yet  "


def check(name: str, sentences: Mapping[str, Callable[[], object]], look: str = "") -> None:
    """Print one line a sentence, then a last line; a sentence is held when its callable returns something true.

    An exception counts as not yet and shows its type and message. Coroutine functions need ``await check_async(...)``.
    """
    _report(name, {sentence: _seen(call) for sentence, call in sentences.items()}, look)


async def check_async(name: str, sentences: Mapping[str, Callable[[], object]], look: str = "") -> None:
    """Print what ``check`` prints; sync and async callables may be mixed, what they return is awaited if it can be."""
    _report(name, {sentence: await _seen_async(call) for sentence, call in sentences.items()}, look)


def _seen(call: Callable[[], object]) -> str | None:
    """Return None if the callable holds, else what was seen instead ("" when it merely returned something false)."""
    try:
        outcome = call()
        if inspect.iscoroutine(outcome):
            outcome.close()
            return "an async callable: await check_async(...) instead"
        return None if outcome else ""
    except Exception as error:
        return _one_line(error)


async def _seen_async(call: Callable[[], object]) -> str | None:
    try:
        outcome = call()
        if inspect.isawaitable(outcome):
            outcome = await outcome
        return None if outcome else ""
    except Exception as error:
        return _one_line(error)


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return text if len(text) <= 120 else f"{text[:117]}..."


def _report(name: str, seen: dict[str, str | None], look: str) -> None:
    for sentence, instead in seen.items():
        print(f"{HELD}{sentence}" if instead is None else f"{NOT_YET}{sentence}" + (f" ({instead})" if instead else ""))
    held = sum(instead is None for instead in seen.values())
    print(f"All {held} held: {name}" if held == len(seen) else f"{held} of {len(seen)} held. Look at: {look or name}")
