"""Argument checks: each returns the value, or raises one error that names argument, value, rule."""

import math
import numbers
import operator
import sys
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeVar

T = TypeVar("T")

LONGEST_MS = 2**62  # Redis refuses an expiry beyond 64 bits
LONGEST_WAIT = 1_000_000.0  # seconds, eleven days: every clock and socket can wait for so long


def whole(name: str, value: object, least: int, most: int = sys.maxsize) -> int:
    """Return value as an int if it is a whole number of any integer type within [least, most].

    >>> whole("count", -5, least=0)
    Traceback (most recent call last):
    ValueError: count must be at least 0, not -5
    >>> whole("count", True, least=0)
    Traceback (most recent call last):
    TypeError: count must be a whole number, not True (bool)
    """
    exact = _exact(value)
    if exact is None:
        raise _mistyped(name, "a whole number", value)
    if exact < least:
        raise ValueError(f"{name} must be at least {least}, not {_shown(value)}")
    if exact > most:
        raise ValueError(f"{name} must be at most {most}, not {_shown(value)}")
    return exact


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    low: float = 0.0,
    high: float = math.inf,
) -> float:
    """Return value as a float if it is a finite number of any real type within its bounds.

    These are [low, high], or (above, high] where ``above`` is given.

    >>> number("ttl", -1, above=0)
    Traceback (most recent call last):
    ValueError: ttl must be greater than 0, not -1
    >>> number("jitter", 2, high=1)
    Traceback (most recent call last):
    ValueError: jitter must be at least 0 and at most 1, not 2
    """
    exact = _exact(value)
    if exact is not None:
        value = exact
    elif isinstance(value, numbers.Integral) or not isinstance(value, (numbers.Real, Decimal)):
        raise _mistyped(name, "a number", value)
    try:
        found = float(value)
    except (OverflowError, ValueError):  # 10**400; a signalling NaN
        found = math.inf
    if not math.isfinite(found):
        most = f"{sys.float_info.max:.1e}"
        raise ValueError(f"{name} must be a finite number, {most} at most, not {_shown(value)}")
    if found > high or (found < low if above is None else found <= above):
        rule = f"at least {low:.15g}" if above is None else f"greater than {above:.15g}"
        if high < math.inf:
            rule += f" and at most {high:.15g}"
        raise ValueError(f"{name} must be {rule}, not {_shown(value)}")
    return found


def milliseconds(name: str, seconds: object) -> int:
    """Return a time to live as Redis takes it: whole milliseconds, from 1 to what it can keep.

    >>> milliseconds("ttl", 2.5), milliseconds("ttl", 1e300) == LONGEST_MS
    (2500, True)
    """
    return round(min(max(1.0, 1000 * number(name, seconds, above=0)), LONGEST_MS))


def wait(name: str, seconds: object) -> float:
    """Return seconds, 0 or more, if they can be waited for.

    >>> wait("latency", 1e300)
    Traceback (most recent call last):
    ValueError: latency must be at least 0 and at most 1000000, not 1e+300
    """
    return number(name, seconds, high=LONGEST_WAIT)


def text(name: str, value: object) -> str:
    """Return value if it is a str that UTF-8 can encode.

    >>> text("prefix", 5)
    Traceback (most recent call last):
    TypeError: prefix must be a str, not 5 (int)
    """
    if not isinstance(value, str):
        raise _mistyped(name, "a str", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{name} must be text that UTF-8 can encode, not {_shown(value)}"
        ) from None
    return value


def identity(name: str, value: object) -> str:
    """Return value if it can name a record: text of 1 to 512 bytes in UTF-8.

    >>> identity("id", "")
    Traceback (most recent call last):
    ValueError: id must be 1 to 512 bytes long in UTF-8, not ''
    """
    found = text(name, value)
    size = len(found.encode())
    if not 0 < size <= 512:
        shown = repr(found) if len(found) <= 40 else f"{found[:40]!r}... ({size} bytes)"
        raise ValueError(f"{name} must be 1 to 512 bytes long in UTF-8, not {shown}")
    return found


def choice(name: str, value: T, allowed: tuple[T, ...]) -> T:
    """Return value if it is one of ``allowed``.

    >>> choice("method", "magic", ("pipeline", "bulk"))
    Traceback (most recent call last):
    ValueError: method must be one of 'pipeline', 'bulk', not 'magic'
    """
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, allowed))}, not {_shown(value)}"
        )
    return value


def several(name: str, value: Iterable[str]) -> Iterable[str]:
    """Return value if it can be gone through; a single text would be taken apart into letters.

    >>> several("ids", "user-1")
    Traceback (most recent call last):
    TypeError: ids must be several texts, such as a list, not the single 'user-1'
    """
    if isinstance(value, (str, bytes)):
        single = _shown(value)
        raise TypeError(f"{name} must be several texts, such as a list, not the single {single}")
    if not isinstance(value, Iterable):
        raise _mistyped(name, "several texts, such as a list", value)
    return value


def _exact(value: object) -> int | None:
    """Return an int of any integer type; None for a bool and what is no integer.

    NumPy counts durations among the integers: they do not pass, or five minutes would be 5.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _mistyped(name: str, kind: str, value: object) -> TypeError:
    return TypeError(f"{name} must be {kind}, not {_shown(value)} ({type(value).__name__})")


def _shown(value: object) -> str:
    """Return the repr of a value, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no int of more than 4300 digits
        return f"a number of type {type(value).__name__} with too many digits to show"
    return text if len(text) <= 80 else f"{text[:40]}... ({len(text)} characters)"
