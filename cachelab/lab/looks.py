"""Looks: which colour, marker and dash stand for which role through the whole series, and how numbers are written."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Names = Mapping[str, str]


@dataclass(frozen=True)
class Look:
    """How a role is drawn: a colour, and a marker and a dash that tell it apart in grey; hollow and thin on a second machine."""

    color: str
    marker: str
    dash: str | tuple = "-"
    hollow: bool = False

    @property
    def stroke(self) -> dict[str, object]:
        """Return how matplotlib is to draw a line."""
        return {"color": self.color, "linestyle": self.dash} | ({"linewidth": 1.3} if self.hollow else {})

    @property
    def mark(self) -> dict[str, object]:
        """Return how matplotlib is to draw a marker on a line."""
        if self.hollow:
            size = {"markersize": 7}  # small enough that a filled one beneath shows
            return {"color": self.color, "markerfacecolor": "white", "markeredgewidth": 2} | size
        return {"color": self.color, "markeredgecolor": "white", "markeredgewidth": 0.8}

    @property
    def fill(self) -> dict[str, object]:
        """Return how matplotlib is to draw a bar that stands alone."""
        return {"facecolor": "white", "edgecolor": self.color, "linewidth": 2} if self.hollow else {"color": self.color}

    @property
    def hatched(self) -> dict[str, object]:
        """Return how matplotlib is to draw a bar among others, where a hatch stands for the dash."""
        solid = {"facecolor": self.color, "edgecolor": "white", "linewidth": 0}
        return (self.fill if self.hollow else solid) | {"hatch": HATCHES.get(self.dash)}


Roles = Mapping[str, str | Look]  # {name in the data: role, or a look of its own}

# Okabe and Ito's palette without its yellow, which is too pale to be projected, and greys
GREEN, RED, BLUE, ORANGE = "#009E73", "#D55E00", "#0072B2", "#E69F00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#6A6A6A"
DASHED, DOTTED, DASHDOT, LONG = (0, (4, 1.6)), (0, (1.3, 1.3)), (0, (5, 1.4, 1.3, 1.4)), (0, (8, 1.8))
ROLES: dict[str, Look] = {
    **dict.fromkeys(("cache", "hit", "redis"), Look(GREEN, "o")),
    **dict.fromkeys(("database", "origin", "miss", "sqlite", "postgresql"), Look(RED, "s", DASHED)),
    **dict.fromkeys(("sync", "one by one", "one_by_one"), Look(BLUE, "D")),
    **dict.fromkeys(("async", "async one by one"), Look(ORANGE, "^", DASHED)),
    **dict.fromkeys(("gather", "async gather"), Look(SKY, "v", DASHDOT)),
    "threads": Look(GREY, "P", LONG),
    "pipeline": Look(PURPLE, "X"),
    **dict.fromkeys(("bulk", "mset", "mget"), Look(BLACK, "p", DOTTED)),
    **dict.fromkeys(("dict", "memory"), Look(SKY, "h")),
    **dict.fromkeys(("model", "theory"), Look(BLACK, "", DASHED)),
    **dict.fromkeys(("lru", "allkeys-lru", "volatile-lru"), Look(BLUE, "o")),
    **dict.fromkeys(("lfu", "allkeys-lfu", "volatile-lfu"), Look(ORANGE, "s", DASHED)),
    **dict.fromkeys(("random", "allkeys-random", "volatile-random"), Look(GREY, "X", DOTTED)),
    "fifo": Look(SKY, "v", LONG),
    "s3-fifo": Look(GREEN, "^", DASHDOT),
    "sieve": Look(PURPLE, "D", DASHED),
    "w-tinylfu": Look(RED, "P", DOTTED),
    "arc": Look(GREY, "h", LONG),
    "volatile-ttl": Look(PURPLE, "d", DASHDOT),
    "noeviction": Look(RED, "p", LONG),
    "belady": Look(BLACK, "*"),
    "p95": Look(BLUE, "D", DASHDOT),
}
PLAIN = Look("#55667A", "o")
HATCHES = {DASHED: "//", DOTTED: "..", DASHDOT: "\\\\", LONG: "--"}
SPARE = (Look(BLUE, "o"), Look(ORANGE, "s", DASHED), Look(GREEN, "^", DASHDOT), Look(PURPLE, "D", DOTTED))

UNITS = {"seconds": "s", "p50": "s", "p95": "s", "p99": "s", "max": "s", "ratio": "×", "hit_rate": "%", "share": "%"}
WORDS = {"seconds": "time", "p50": "median time", "p95": "95th percentile", "p99": "99th percentile", "max": "longest"}


def assign(names: Iterable, roles: Roles | str | None, other: Look, repeat: bool = False) -> dict[object, Look]:
    """Return the look of each name: its role's, else the next spare one (``other`` first); looks differ unless ``repeat``."""
    looks, taken = {}, set()
    for name in names:
        role = roles if isinstance(roles, str) else (roles or {}).get(name)
        if isinstance(role, Look):
            looks[name] = role
            continue
        if role is not None and role not in ROLES:
            raise ValueError(f"roles must name one of {', '.join(map(repr, ROLES))}, not {role!r}")
        looks[name] = ROLES.get(role or str(name).lower())
    for name, look in looks.items():
        if look is None or (look in taken and not repeat):
            used = {look.color for look in (*looks.values(), *taken) if look}
            looks[name] = (
                other if repeat else next((spare for spare in (other, *SPARE) if spare.color not in used), PLAIN)
            )
        taken.add(looks[name])
    return looks


def unit_of(column: object) -> str:
    """Return the unit that a column's name tells ("rtt_ms" tells ms, "p50" seconds), or "" if it tells none."""
    found = re.search(r"_(seconds|ms|us|bytes|kb|mb)$", str(column))
    return UNITS.get(column) or ({"seconds": "s"}.get(found[1], found[1]) if found else "")


def axis_label(column: str, units: Names) -> str:
    """Return what to write on the axis of a column; times, shares and ratios carry their unit at the ticks."""
    words = WORDS.get(column) or re.sub(r"_(seconds|ms|us|bytes|kb|mb)$", "", column).replace("_", " ")
    return words if units[column] in ("", "s", "%", "×") else f"{words} ({units[column]})"


def written(value: object, unit: str, like: float | None = None) -> str:
    """Write a number for people; ``like`` is the number whose unit of time is taken (the largest one of an axis).

    >>> [written(v, "s") for v in (1.234e-7, 0.00145, 0.142, 2, 0)], written(0.642, "%"), written(12345.6, "calls/s")
    (['123 ns', '1.45 ms', '142 ms', '2 s', '0'], '64.2 %', '12,346 calls/s')
    """
    if isinstance(value, str | bool | np.bool):
        return str(value)
    if unit == "s" and value:
        times = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
        size, unit = next((time for time in times if abs(like or value) >= 0.9995 * time[0]), times[-1])
        value /= size
    elif unit == "%":
        value *= 100
    number = f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"
    return number + ("" if unit in ("", "s") and not value else unit if unit == "×" else f" {unit}").rstrip()
