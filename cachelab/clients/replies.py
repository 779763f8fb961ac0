"""Nonsense where a reply is expected: refused as it is read, before it costs memory and time."""

import re
from typing import Any

from redis.exceptions import ConnectionError, InvalidResponse
from redis.utils import str_if_bytes

AGGREGATES = b"*%~>|"  # what a reply of several elements begins with
_BULKS = b"$=!"
HUGE = re.compile(rb"[*%~>|]\d{8}")
LONGEST = 64  # bytes of a line that announces a size

MODES = {  # what HELLO calls it, what people call it, how its URL reads
    "standalone": ("a single server", "begins with redis:// or rediss://"),
    "cluster": ("a node of a cluster", "begins with redis-cluster:// or rediss-cluster://"),
    "sentinel": ("a Sentinel", "reads redis-sentinel://host:port/service"),
}

MOST_ELEMENTS = 2**24  # of one reply: hiredis makes room for as many as are announced, at once


def check_sizes(head: bytes) -> None:
    """Refuse a reply that announces absurdly many elements.

    Args:
        head: The first bytes of a reply in which `HUGE` is found, as far as they have arrived.

    Raises:
        InvalidResponse: One of the sizes announced in these bytes cannot be meant. (Of bytes
            hiredis takes as many as come, so that a wrong number costs no room.)
    """
    at = 0
    while at < len(head):
        end = head.find(b"\r\n", at)
        end = len(head) if end < 0 else end
        digits = head[at + 1 : end]
        if head[at] in AGGREGATES and digits.isdigit():
            if len(digits) > 20 or int(digits) > MOST_ELEMENTS:
                said = digits[:20].decode()
                raise InvalidResponse(f"not a reply of Redis: it announces {said} elements")
        elif head[at] in _BULKS and digits.isdigit():
            end += int(digits[:20]) + 2  # what it holds may look like anything
        at = end + 2


class WrongKind(ConnectionError):
    """A server is there, but it is of another kind than the URL says."""


def check_greeting(answer: Any, mode: str) -> str:
    """Return which server it is, such as "Redis 7.0.15"; refuse one that is none, or another kind.

    >>> check_greeting({"server": "valkey", "version": "9.1.2", "proto": 3}, "standalone")
    'Valkey 9.1.2'

    Args:
        answer: What it answered to HELLO.
        mode: What it is to be, one of `MODES`.

    Raises:
        InvalidResponse: It does not answer as Redis does.
        WrongKind: It is another of `MODES`; what to write instead is said.
    """
    said = {str_if_bytes(key): answer[key] for key in answer} if isinstance(answer, dict) else {}
    if said.get("proto") != 3:
        raise InvalidResponse(f"not Redis's answer to HELLO 3: {str(answer)[:40]!r}")
    found = str_if_bytes(said.get("mode", mode))
    if found != mode and found in MODES:
        wanted, (is_one, way_out) = MODES[mode][0], MODES[found]
        raise WrongKind(f"it is {is_one}, not {wanted}: its URL {way_out}")
    name, version = (str(str_if_bytes(said.get(key, "")))[:40] for key in ("server", "version"))
    return f"{name.capitalize()} {version}".strip()
