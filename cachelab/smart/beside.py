"""Loads that no reader waits for, by the parts of a cache and with settings of their own."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cachelab.cache.codec import Mark
from cachelab.cache.core import Core, Load
from cachelab.cache.gate import Budget

Observer = Callable[[Load], object]


@dataclass(frozen=True)
class OfReaders:
    """An observer that is told of the loads that readers wait for, not of those made beside."""

    note: Observer

    def __call__(self, load: Load) -> None:
        self.note(load)


def core_of(cache: Any, kind: type[Any]) -> Core:
    """Return the core of a cache; TypeError where it is of another kind."""
    if not isinstance(cache, kind):
        raise TypeError(f"cache must be of type {kind.__name__}, not {cache!r}")
    core: Core = cache.core
    return core


def beside(core: Core, note: Observer, **changed: Any) -> Core:
    """Return a core that shares everything with another, its flights and its room among it.

    Args:
        core: Of the cache whose keys are loaded.
        note: Is told of the loads that the returned core makes, and of no others.
        changed: Settings that differ, for these loads alone.
    """
    twin = copy.copy(core)
    twin.settings = replace(core.settings, **changed)
    twin.observers = (note, *(one for one in core.observers if not isinstance(one, OfReaders)))
    return twin


async def loaded_apart(twin: Core, ids: list[str]) -> list[str]:
    """Have ids loaded that are not cached, which counts as no read; return them.

    Those that could not be cached now are left out: see `is_shut`.
    """
    budget = Budget()
    if twin.pending:
        await twin.send_pending(budget, ids)
    ready = [id for id in ids if not is_shut(twin, id)]
    await twin.load(dict.fromkeys(ready, Mark.MISS), budget)
    return ready


def is_shut(core: Core, id: str) -> bool:
    """Say whether an id cannot be cached now: its server or shard is away, or a delete waits."""
    return id in core.pending or core.gates.of(core.key(id)).breaker.state == "open"
