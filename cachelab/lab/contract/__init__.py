"""What a cache-aside must hold, as a suite that judges any cache.

The package's own, or one written in a notebook's cell.
"""

from cachelab.lab.contract import reading, loading, freshness, failures, interrupts  # noqa: I001
from cachelab.lab.contract.promises import NOT_APPLICABLE, PROMISES, check, promise, verdict

__all__ = [
    "NOT_APPLICABLE",
    "PROMISES",
    "check",
    "failures",
    "freshness",
    "interrupts",
    "loading",
    "promise",
    "reading",
    "verdict",
]
