"""What a cache keeps under a key: JSON text, or a lease while the value is being loaded."""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LEASE = "lease:"  # no JSON begins like this
LONGEST = 2**62  # milliseconds: Redis refuses an expiry beyond 64 bits


class Mark:
    """What a read can come to instead of a value."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


MISS, LEASED, BROKEN = map(Mark, ("MISS", "LEASED", "BROKEN"))  # the key holds nothing, a lease, something unreadable
FAILED, ALONE = map(Mark, ("FAILED", "ALONE"))  # Redis gave no answer; it did, but this load cannot have a lease


def encode(id: str, value: Any) -> str:
    """Return value as JSON text; TypeError names the id of a value that JSON cannot hold.

    >>> encode("user-1", {"name": "Ada", 7: None})
    '{"name":"Ada","7":null}'
    >>> encode("user-1", {1, 2})
    Traceback (most recent call last):
    TypeError: the value loaded for 'user-1' is not JSON: Object of type set is not JSON serializable
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"the value loaded for {id!r} is not JSON: {error}") from None


def encode_all(ids: Iterable[str], values: Mapping[str, Any]) -> dict[str, str | Exception]:
    """Return, for each id, its value as JSON text or what keeps it from being one; an id that is left out is absent.

    >>> encode_all(["a", "b"], {"a": 1})
    {'a': '1', 'b': 'null'}
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"load_many must return a mapping of ids to values, not a {type(values).__name__}")
    outcomes: dict[str, str | Exception] = {}
    for id in ids:
        try:
            outcomes[id] = encode(id, values.get(id))
        except TypeError as error:
            outcomes[id] = error
    return outcomes


def decode(raw: bytes | Mark | None) -> Any:
    """Return the value that a key holds, or what it holds instead: MISS, LEASED, BROKEN; FAILED is passed on.

    >>> decode(b'""'), decode(b"null"), decode(None), decode(b"lease:1f"), decode(b"{")
    ('', None, MISS, LEASED, BROKEN)
    """
    if raw is None:
        return MISS
    if raw is FAILED:
        return FAILED
    try:
        text = raw.decode()
        value, end = _scan(text, 0)
        return value if end == len(text) else from_json(text)
    except (ValueError, RecursionError, AttributeError, StopIteration):
        return LEASED if isinstance(raw, bytes) and raw.startswith(LEASE.encode()) else BROKEN


def milliseconds(ttl: float, jitter: float = 0.0, draw: Callable[[], float] = random.random) -> int:
    """Return ttl in whole milliseconds, drawn uniformly from [ttl * (1 - jitter), ttl].

    >>> milliseconds(2.5), milliseconds(10, jitter=0.1, draw=lambda: 1.0)
    (2500, 9000)
    """
    return round(min(max(1, 1000 * ttl * (1 - jitter * draw())), LONGEST))


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are not JSON


_decoder = json.JSONDecoder(parse_constant=_refuse)
from_json, _scan = _decoder.decode, _decoder.scan_once  # the second takes half the time, and no surrounding space
