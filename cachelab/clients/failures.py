"""Whose failure it is: what Redis or the network did, or what came from elsewhere meanwhile.

A signal handler may raise while a reply is waited for: a task's time limit, say. redis-py takes
what it raises for its own if it is a TimeoutError or another OSError, and turns it into an error
of its own, which keeps the first one as its context.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import TypeVar

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    InvalidResponse,
    RedisError,
)

T = TypeVar("T")

# Where what Redis or the network did is caught and turned into another error ...
_CLIENT = ("cachelab.clients", "hiredis", "redis")
# ... and where it is raised; the last ones raise a socket's errors in place of the socket.
_BELOW = (
    *("asyncio", "builtins", "codecs", "concurrent", "contextlib", "copy", "encodings"),
    *("_queue", "queue", "random", "select", "selectors", "socket", "ssl", "stringprep"),
    *("threading", "eventlet", "gevent", "uvloop", "winloop"),
)

# What Python raises where redis-py takes a reply for what it is not.
NONSENSE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class Away(ConnectionError):
    """Nobody of several answered.

    Attributes:
        tried: What came of it, by address.
    """

    def __init__(self, tried: Mapping[str, Exception]):
        self.tried = dict(tried)
        by_reason: dict[str, list[str]] = {}
        for place, error in tried.items():
            own = rf" (from|to) {re.escape(place)}| \('[^']*', \d+\)"  # asyncio's way to name it
            reason = re.sub(own, "", str(error))
            by_reason.setdefault(reason, []).append(place)
        super().__init__(
            "; ".join(f"{', '.join(places)}: {reason}" for reason, places in by_reason.items())
        )


def foreign(error: BaseException) -> BaseException | None:
    """Find what neither Redis nor the network caused, such as a signal handler's time limit.

    Args:
        error: What a call of a client raised.

    Returns:
        error itself, or the one behind it that the client took for Redis's, or None. What the
        caller was handling already when it called stands in the same chain and is not meant.
    """
    for cause in chain(error):
        modules = _modules(cause)
        if cause is not error and not (modules and _is_within(modules[0], _CLIENT)):
            continue  # not caught by the client: the caller was handling it
        if cause is not error and isinstance(cause, asyncio.CancelledError):
            continue  # how asyncio ends what takes too long
        if isinstance(cause, RedisError):
            continue  # whoever passes it on
        if not _is_of_network(cause) or (modules and not _is_within(modules[-1], _CLIENT + _BELOW)):
            return cause
    return None


def is_transient(error: Exception) -> bool:
    """Tell whether asking again may help: a wrong password stays wrong, and a limit is reached."""
    return not isinstance(error, (AuthenticationError, AuthorizationError)) and not foreign(error)


def verdict(error: BaseException) -> BaseException:
    """Return what the caller is to see: what is not Redis's as it is, nonsense as a RedisError."""
    if (cause := foreign(error)) is not None:
        return cause
    if isinstance(error, NONSENSE) and not isinstance(error, UnicodeError):
        said = InvalidResponse(f"not a reply of Redis: {type(error).__name__}: {error}")
        said.__cause__ = error
        return said
    return error


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield error and all that led to it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        cause = left.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            left += [cause.__context__, cause.__cause__]
            yield cause


def passed(error: Exception) -> Exception:
    """Return what Redis or the network did; raise what comes from elsewhere."""
    if (theirs := foreign(error)) is not None:
        raise theirs
    return error


def turns(whom: Sequence[T], until: float, seconds: float) -> Iterator[tuple[T, float]]:
    """Yield whom to ask next, and until when, so that others are asked too if nothing is heard.

    Args:
        whom: All that can be asked, one after the other.
        until: When the last of them must have answered, on the monotonic clock.
        seconds: How long each of them may take.
    """
    for left in range(len(whom), 0, -1):
        now = monotonic()
        share = (until - now) / min(left, 2)  # half of what is left, the last one all of it
        yield whom[-left], now + min(seconds, share)


def _modules(error: BaseException) -> list[str]:
    """Return the module of each frame that error passed, the one that raised it last."""
    names = []
    step = error.__traceback__
    while step is not None:
        names.append(str(step.tb_frame.f_globals.get("__name__")))
        step = step.tb_next
    return names


def _is_of_network(error: BaseException) -> bool:
    """Tell whether error is of a kind that Redis, the network, or nonsense read from it raises."""
    return isinstance(error, Exception) and _is_within(type(error).__module__, _CLIENT + _BELOW)


def _is_within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)
