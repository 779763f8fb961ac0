"""Loads that no reader waits for, by the parts of a cache and with settings of their own."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cachelab.cache.codec import Mark
from cachelab.cache.core import Core, Load
from cachelab.cache.gate import Budget

Observer = Callable[[Load], object]


def beside(core: Core, note: Observer, without: Observer | None = None, **changed: Any) -> Core:
    """Return a core that shares everything with another, its flights and its room among it.

    Args:
        core: Of the cache whose keys are loaded.
        note: Is told of the loads that the returned core makes, and of no others.
        without: An observer of the cache that is not told of them.
        changed: Settings that differ, for these loads alone.
    """
    twin = copy.copy(core)
    twin.settings = replace(core.settings, **changed)
    twin.observers = (note, *(one for one in core.observers if one != without))
    return twin


async def loaded_apart(twin: Core, ids: list[str]) -> bool:
    """Have ids loaded that are not cached, which counts as no read.

    Return False, and load nothing, where what is loaded could not be cached now: Redis is away, or
    deletes wait for it.
    """
    budget = Budget()
    if twin.pending:
        await twin.send_pending(budget, ids)
    if twin.pending or twin.gates.state == "open":
        return False
    await twin.load(dict.fromkeys(ids, Mark.MISS), budget)
    return True
