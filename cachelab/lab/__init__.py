"""The bench: workloads, slow networks, fair timing and charts. The core never imports it."""

import os
from typing import TypeVar

from cachelab._check import choice

T = TypeVar("T")


def at_scale(quick: T, full: T) -> T:
    """Return ``quick`` or ``full`` as CACHELAB_SCALE says (quick when it is not set); ValueError for any other word.

    >>> at_scale(50, 1000) in (50, 1000)
    True
    """
    return {"quick": quick, "full": full}[scale()]


def scale() -> str:
    """Return the scale of this run, "quick" or "full": the one place that reads CACHELAB_SCALE."""
    return choice("CACHELAB_SCALE", os.environ.get("CACHELAB_SCALE", "quick"), ("quick", "full"))
