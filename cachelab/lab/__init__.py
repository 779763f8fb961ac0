"""The bench: workloads, slow networks, fair timing and charts. The core never imports it."""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TypeVar

from cachelab._check import choice
from cachelab._extras import need

# Where the modules are that a lesson asks for by name: `from cachelab.lab import timing, charts`.
ROOMS = {
    "measure": "timing link disk costs callers pages",
    "draw": "charts figures canvas layout roles units",
    "hits": "workload traces theory eviction replay policies prediction",
    "watch": "observe clinic rights rules drill",
    "faults": "applications outage stampede guards scaling kills writing restarts",
    "panels": "widgets buttons display dashboard",
}

T = TypeVar("T")


def at_scale(quick: T, full: T) -> T:
    """Return ``quick`` or ``full`` as CACHELAB_SCALE says, quick when it is not set.

    Raises:
        ValueError: It says something else.

    >>> at_scale(50, 1000) in (50, 1000)
    True
    """
    return {"quick": quick, "full": full}[scale()]


def scale() -> str:
    """Return the scale of this run, "quick" or "full": the one place that reads CACHELAB_SCALE."""
    return choice("CACHELAB_SCALE", os.environ.get("CACHELAB_SCALE", "quick"), ("quick", "full"))


def __getattr__(name: str) -> ModuleType:
    for room, modules in ROOMS.items():
        if name in modules.split():
            need(f"cachelab.lab.{name}", "lab")
            return import_module(f"cachelab.lab.{room}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if "IPython" in sys.modules:  # perhaps a kernel
    import_module("cachelab.lab.asserts").explain()
    import_module("cachelab.lab.cells").attend()
