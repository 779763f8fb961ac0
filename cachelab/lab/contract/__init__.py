"""What a cache must hold, a cache-aside or one that is written through, as a suite that judges any.

The package's own, or one written in a notebook's cell.
"""

from cachelab.lab.contract import reading, loading, freshness, failures, interrupts  # noqa: I001
from cachelab.lab.contract import behind, direct, ahead  # noqa: I001
from cachelab.lab.contract.promises import (
    NOT_APPLICABLE,
    PROMISES,
    check,
    kind_of,
    promise,
    promises_of,
    verdict,
)

__all__ = [
    "NOT_APPLICABLE",
    "PROMISES",
    "ahead",
    "behind",
    "check",
    "direct",
    "failures",
    "freshness",
    "interrupts",
    "kind_of",
    "loading",
    "promise",
    "promises_of",
    "reading",
    "verdict",
]
