"""Host names, looked up in time: the system itself waits ten seconds for a silent name server."""

import _thread
import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

Places = list[tuple[Any, ...]]  # what socket.getaddrinfo returns
_Answer = Places | OSError


class UnknownHost(OSError):
    """A host's name is not known, or nobody said in time whether it is."""


_under_way: dict[tuple[Any, ...], "_LookUp"] = {}


class _LookUp:
    """One look-up in a thread of its own, for all that ask for the same name meanwhile.

    No lock and no condition, which a signal handler that asks again would wait for: what is shared
    is changed in steps that are atomic.
    """

    def __init__(self, key: tuple[Any, ...]):
        self._key = key
        self._answer: _Answer | None = None
        self._waiting: list[Callable[[_Answer], object]] = []

    def tell(self, waiter: Callable[[_Answer], object]) -> None:
        """Call waiter with the answer, now or when it comes."""
        self._waiting.append(waiter)
        if self._answer is not None:
            self._tell_all()

    def run(self) -> None:
        _, host, port, family = self._key
        try:
            self._answer = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._answer = UnknownHost(f"name {host} is not known ({error})")
        _under_way.pop(self._key, None)
        self._tell_all()

    def _tell_all(self) -> None:
        while self._waiting:
            try:
                waiter = self._waiting.pop()
            except IndexError:  # another thread took the last one
                return
            waiter(self._answer)  # type: ignore[arg-type]


def addresses(host: str, port: int, family: int, seconds: float) -> Places:
    """Return where a host can be reached, as socket.getaddrinfo does.

    Raises:
        UnknownHost: The name is not known, or nobody answered within so many seconds.
    """
    if numeric := _numeric(host, port):
        return numeric
    answers: SimpleQueue[_Answer] = SimpleQueue()
    _look_up(host, port, family).tell(answers.put)
    try:
        answer = answers.get(timeout=max(seconds, 0))
    except Empty:
        raise UnknownHost(f"name {host} was not resolved in time") from None
    if isinstance(answer, OSError):
        raise UnknownHost(*answer.args)  # a new one: several may wait for the same
    return answer


async def addresses_async(host: str, port: int, family: int) -> Places:
    """Return what `addresses` returns; the caller says how long it waits."""
    if numeric := _numeric(host, port):
        return numeric
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Answer] = loop.create_future()

    def arrive(answer: _Answer) -> None:
        if not future.done():
            future.set_result(answer)

    def tell(answer: _Answer) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(arrive, answer)

    _look_up(host, port, family).tell(tell)
    answer = await future
    if isinstance(answer, OSError):
        raise UnknownHost(*answer.args)
    return answer


def _look_up(host: str, port: int, family: int) -> _LookUp:
    key = (os.getpid(), host, port, family)  # a forked child has no thread of its parent's
    known = _under_way.get(key)
    if known is None:
        made = _LookUp(key)
        known = _under_way.setdefault(key, made)
        if known is made:
            _thread.start_new_thread(made.run, ())  # threading.Thread would wait for its start
    return known


def _numeric(host: str, port: int) -> Places:
    """Return the place of an address that is no name; [] for a name."""
    for family, place in ((socket.AF_INET, (host, port)), (socket.AF_INET6, (host, port, 0, 0))):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return [(family, socket.SOCK_STREAM, 0, "", place)]
    return []
