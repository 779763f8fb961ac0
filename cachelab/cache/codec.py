"""What a cache keeps under a key: JSON text, or a lease while the value is being loaded."""

import copy
import json
import random
import signal
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from enum import Enum
from functools import partial
from itertools import repeat
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, TracebackType
from typing import Any

from cachelab.cache.settings import Settings

LEASE = "lease:"  # no JSON begins like this
LONGEST = 2**62  # milliseconds: Redis refuses an expiry beyond 64 bits


class Mark(Enum):
    """What a read can come to instead of a value."""

    MISS = "the key holds nothing"
    LEASED = "the key holds a lease: somebody is loading"
    CORRUPT = "the key holds text that cannot be decoded"
    OTHER_TYPE = "the key holds a list, a hash ...: it is nobody's cache entry"
    UNLEASED = "Redis answered, but this load cannot have a lease"
    UNAVAILABLE = "Redis gave no answer"


class Failure:
    """What a load raised, for each of its readers as an exception object of its own."""

    def __init__(self, error: Exception):
        self.error = error
        self.traceback: TracebackType | None = error.__traceback__

    def of_reader(self) -> "Failure":
        """Return the same with an exception of its own, whose traceback nobody else lengthens."""
        failure = Failure(_copied(self.error))
        failure.traceback = self.traceback
        return failure

    @property
    def is_the_loaders_alone(self) -> bool:
        """Whether a signal handler raised it, amid the load: it says nothing of the id."""
        handlers = signal_handlers()
        entry = self.traceback
        while entry is not None:
            if entry.tb_frame.f_code in handlers:
                return True
            entry = entry.tb_next
        return False


def signal_handlers() -> set[CodeType]:
    """Return the code of the functions that handle signals in this process."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return {code for handler in handlers if (code := _code(handler)) is not None}


def _code(function: Any) -> CodeType | None:
    while isinstance(function, partial):
        function = function.func
    if not isinstance(function, (FunctionType, MethodType, BuiltinFunctionType)):
        function = getattr(type(function), "__call__", None)  # noqa: B004
    return getattr(getattr(function, "__func__", function), "__code__", None)


Outcome = str | Failure  # of a load: JSON text, so that each reader gets a value of its own


def value_of(outcome: Outcome) -> Any:
    """Return the value that a load gave, or raise what it raised.

    >>> value_of('{"name":"Ada"}')
    {'name': 'Ada'}
    """
    if isinstance(outcome, Failure):
        raise outcome.error.with_traceback(outcome.traceback)
    return from_json(outcome)


def raise_first(failures: Mapping[str, Failure]) -> None:
    """Raise what the first of some Failures stands for; nothing where there is none."""
    for failure in failures.values():
        value_of(failure)


async def attempted(load: Callable[[Any], Any], ids: Any) -> Any:
    """Return what a load returns, or as a Failure what it raises: a coroutine that never suspends.

    What is not an Exception, but the interpreter's or a framework's way out, passes.
    """
    return _attempted(load, ids)


async def attempted_async(load: Callable[[Any], Any], ids: Any) -> Any:
    """Return what an asynchronous load returns, or as a Failure what it raises."""
    try:
        value = load(ids)
        if not isinstance(value, Awaitable):
            name = "load_many" if isinstance(ids, list) else "load"
            raise TypeError(
                f"{name} must be an async function: CacheAside is the cache that calls {load!r}"
            )
        return await value
    except Exception as error:
        return Failure(error)


def _attempted(load: Callable[[Any], Any], ids: Any) -> Any:
    try:  # not in a coroutine, which would make a RuntimeError of a StopIteration
        return load(ids)
    except Exception as error:
        return Failure(error)


CALLS_LOAD = {_attempted.__code__, attempted_async.__code__}


def encode(id: str, value: Any, what: str = "the value loaded for") -> str:
    """Return value as JSON text that reads back as it was written.

    what: What the value is, as errors say it.

    >>> encode("user-1", {"name": "Ada", 7: None})
    '{"name":"Ada","7":null}'
    >>> encode("ada", {1, 2})
    Traceback (most recent call last):
    TypeError: the value loaded for 'ada' is not JSON: Object of type set is not JSON serializable
    >>> encode("user-1", {1: "a", "1": "b"})
    Traceback (most recent call last):
    ValueError: the value loaded for 'user-1' would lose a part in JSON: two keys become '1'

    Raises:
        TypeError: JSON cannot hold the value; the message names the id.
        ValueError: Two keys of a dict become the same text.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{what} {id!r} is not JSON: {error}") from None
    try:
        if "{" in text:
            _unambiguous.decode(text)
    except _Twins as twins:
        key = twins.args[0]
        raise ValueError(
            f"{what} {id!r} would lose a part in JSON: two keys become {key!r}"
        ) from None
    return text


def encode_all(ids: Iterable[str], values: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return, for each id, its value as JSON text or what keeps it from being one.

    An id that is left out is absent.

    >>> encode_all(["a", "b"], {"a": 1})
    {'a': '1', 'b': 'null'}
    >>> encode_all(["1"], {1: "a"})
    Traceback (most recent call last):
    TypeError: load_many was asked for 1 ids and returned others too: 1 (int)
    """
    if not isinstance(values, Mapping):
        kind = type(values).__name__
        raise TypeError(f"load_many must return a mapping of ids to values, not a {kind}")
    asked = set(ids)
    if strangers := [key for key in values if key not in asked]:
        shown = ", ".join(f"{key!r} ({type(key).__name__})" for key in strangers[:3])
        raise TypeError(
            f"load_many was asked for {len(asked)} ids and returned others too: {shown}"
        )
    return {id: encoded(id, values.get(id)) for id in ids}


def encoded(id: str, value: Any) -> Outcome:
    """Return value as JSON text, or as a Failure what keeps it from being one."""
    try:
        return encode(id, value)
    except (TypeError, ValueError) as error:
        return Failure(error)


def decode(raw: bytes | Mark | None) -> Any:
    """Return the value that a key holds, or the Mark of what it holds instead; a Mark is passed on.

    >>> decode(b'""'), decode(b"null"), decode(None), decode(b"lease:1f"), decode(b"{")
    ('', None, <Mark.MISS: ...>, <Mark.LEASED: ...>, <Mark.CORRUPT: ...>)
    """
    if raw is None:
        return Mark.MISS
    try:
        text = raw.decode()  # type: ignore[union-attr]  # that of a Mark fails, which is dearer
        value, end = _scan(text, 0)
        return value if end == len(text) else from_json(text)
    except (ValueError, RecursionError, AttributeError, StopIteration):
        if isinstance(raw, Mark):
            return raw
        leased = isinstance(raw, bytes) and raw.startswith(LEASE.encode())
        return Mark.LEASED if leased else Mark.CORRUPT


def decode_all(raws: Collection[Any]) -> list[Any] | None:
    """Return what `decode` does for each, in C; None if one of them is no value.

    >>> decode_all([b"1", b'"a"']), decode_all([b"1", None])
    ([1, 'a'], None)
    """
    try:
        texts = list(map(bytes.decode, raws))
        values, ends = zip(*map(_scan, texts, repeat(0)), strict=True)
    except (TypeError, ValueError, RecursionError):  # also where one is no JSON: it ends the map
        return None
    return list(values) if list(ends) == list(map(len, texts)) else None


NOTHING = "", "1"  # what is stored for no value


def entry(outcome: Outcome, settings: Settings) -> tuple[str, str]:
    """Return what to store for the outcome of a load, "" for nothing, and its ttl in ms."""
    if isinstance(outcome, Failure) or len(outcome) > settings.max_value_bytes:
        return NOTHING
    if outcome == "null":
        ttl = settings.missing_ttl
        return NOTHING if ttl is None else (outcome, str(milliseconds(ttl)))
    return outcome, str(milliseconds(settings.ttl, settings.jitter))


class Form:
    """How values stand in their keys: here as JSON and nothing else."""

    def entry(self, outcome: Outcome, settings: Settings) -> tuple[str, str]:
        """Return what to store for the outcome of a load, "" for nothing, and its ttl in ms."""
        return entry(outcome, settings)

    def json_of(self, raw: Any) -> Any:
        """Return the JSON in what a key holds; what is none, such as a lease, as it is."""
        return raw


def milliseconds(ttl: float, jitter: float = 0.0, draw: Callable[[], float] = random.random) -> int:
    """Return ttl in whole milliseconds, drawn uniformly from [ttl * (1 - jitter), ttl].

    >>> milliseconds(2.5), milliseconds(10, jitter=0.1, draw=lambda: 1.0)
    (2500, 9000)
    """
    return round(min(max(1, 1000 * ttl * (1 - jitter * draw())), LONGEST))


class _Twins(Exception):
    """Two keys of one object that are the same text."""


def _without_twins(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise _Twins(key)
        seen.add(key)


def _copied(error: Exception) -> Exception:
    """Return a copy of an exception; itself where its class lets itself not be copied."""
    try:
        twin = copy.copy(error)
        if type(twin) is not type(error) or twin.args != error.args:
            raise TypeError
    except Exception:  # whatever a stranger's class does when it is built from its args
        twin = type(error).__new__(type(error), *error.args)
        twin.__dict__.update(error.__dict__)
    twin.__cause__ = error.__cause__
    twin.__context__ = error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are not JSON


_unambiguous = json.JSONDecoder(object_pairs_hook=_without_twins)
_decoder = json.JSONDecoder(parse_constant=_refuse)
from_json = _decoder.decode
_scan: Any = vars(_decoder)["scan_once"]  # takes half the time, and no surrounding space
