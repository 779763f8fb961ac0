"""Argument checks: each returns the value or raises one error that names the argument, its value and the rule."""

import math
import numbers
from collections.abc import Iterable


def whole(name: str, value: object, least: int) -> int:
    """Return value if it is a whole number, NumPy's included, of at least ``least``.

    >>> whole("count", -5, least=0)
    Traceback (most recent call last):
    ValueError: count must be at least 0, not -5
    >>> whole("count", True, least=0)
    Traceback (most recent call last):
    TypeError: count must be a whole number, not True (bool)
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r} ({type(value).__name__})")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value


def number(name: str, value: object, *, above: float | None = None, low: float = 0.0, high: float = math.inf) -> float:
    """Return value if it is a finite number within [low, high], or greater than ``above`` when that is given.

    >>> number("ttl", -1, above=0)
    Traceback (most recent call last):
    ValueError: ttl must be greater than 0, not -1
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {value!r} ({type(value).__name__})")
    if above is not None and not (above < value < math.inf):
        raise ValueError(f"{name} must be greater than {above}, not {value}")
    if above is None and not (low <= value <= high and value < math.inf):
        raise ValueError(f"{name} must lie between {low:g} and {high:g}, not {value}")
    return value


def text(name: str, value: object) -> str:
    """Return value if it is a str that UTF-8 can encode.

    >>> text("prefix", 5)
    Traceback (most recent call last):
    TypeError: prefix must be a str, not 5 (int)
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r} ({type(value).__name__})")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text that UTF-8 can encode, not {value!r}") from None
    return value


def identity(name: str, value: object) -> str:
    """Return value if it can name a record: text of 1 to 512 bytes in UTF-8.

    >>> identity("id", "")
    Traceback (most recent call last):
    ValueError: id must be 1 to 512 bytes long in UTF-8, not ''
    """
    if not 0 < len(text(name, value).encode()) <= 512:
        shown = repr(value) if len(value) <= 40 else f"{value[:40]!r}... ({len(value.encode())} bytes)"
        raise ValueError(f"{name} must be 1 to 512 bytes long in UTF-8, not {shown}")
    return value


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return value if it is one of ``allowed``.

    >>> choice("method", "magic", ("pipeline", "bulk"))
    Traceback (most recent call last):
    ValueError: method must be one of 'pipeline', 'bulk', not 'magic'
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    return value


def several(name: str, value: Iterable[str]) -> Iterable[str]:
    """Return value if it can be gone through and is no single text, which would be taken apart into letters.

    >>> several("ids", "user-1")
    Traceback (most recent call last):
    TypeError: ids must be several texts, such as a list, not the single 'user-1'
    """
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be several texts, such as a list, not the single {value!r}")
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be several texts, such as a list, not {value!r} ({type(value).__name__})")
    return value
