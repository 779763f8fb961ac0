"""Units: how numbers and the names of columns are written for people."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Names = Mapping[str, str]

UNITS = {
    "seconds": "s",
    "p50": "s",
    "p95": "s",
    "p99": "s",
    "max": "s",
    "ratio": "×",
    "hit_rate": "%",
    "share": "%",
}
WORDS = {
    "seconds": "time",
    "p50": "median time",
    "p95": "95th percentile",
    "p99": "99th percentile",
    "max": "longest",
}

_TIMES = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SUFFIX = r"_(seconds|ms|us|bytes|kb|mb)$"


def unit_of(column: object) -> str:
    """Return the unit that a column's name tells ("rtt_ms": ms, "p50": seconds), or "" for none."""
    name = str(column)
    if name in UNITS:
        return UNITS[name]
    found = re.search(_SUFFIX, name)
    return {"seconds": "s"}.get(found[1], found[1]) if found else ""


def axis_label(column: str, units: Names) -> str:
    """Return what to write on a column's axis; times, shares and ratios have units at the ticks."""
    words = WORDS.get(column) or re.sub(_SUFFIX, "", column).replace("_", " ")
    return words if units[column] in ("", "s", "%", "×") else f"{words} ({units[column]})"


def written(value: Any, unit: str, like: float | None = None) -> str:
    """Write a number for people.

    Args:
        value: The number; texts and truth values are written as they are.
        unit: Its unit, "" for none; seconds are written as ns, µs, ms or s, shares as per cent.
        like: The number whose unit of time is taken, such as the largest one of an axis.

    >>> [written(v, "s") for v in (1.234e-7, 0.00145, 0.142, 2, 0)]
    ['123 ns', '1.45 ms', '142 ms', '2 s', '0']
    >>> written(0.642, "%"), written(12345.6, "calls/s")
    ('64.2 %', '12,346 calls/s')
    """
    if isinstance(value, str | bool | np.bool):
        return str(value)
    if unit == "s" and value:
        largest = abs(like or value)
        size, unit = next((time for time in _TIMES if largest >= 0.9995 * time[0]), _TIMES[-1])
        value /= size
    elif unit == "%":
        value *= 100
    number = f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"
    if unit in ("", "s") and not value:
        return number
    return number + unit if unit == "×" else f"{number} {unit}".rstrip()
