"""Roles: which colour, marker and dash stand for which role through the whole series."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """How a role is drawn: a colour, and a marker and a dash that tell it apart in grey.

    hollow: as on the second of two machines, thin and not filled.
    """

    color: str
    marker: str
    dash: str | tuple = "-"
    hollow: bool = False

    @property
    def stroke(self) -> dict[str, object]:
        """Return how matplotlib is to draw a line."""
        thin = {"linewidth": 1.3} if self.hollow else {}
        return {"color": self.color, "linestyle": self.dash, **thin}

    @property
    def mark(self) -> dict[str, object]:
        """Return how matplotlib is to draw a marker on a line."""
        if self.hollow:
            hollow = {"markerfacecolor": "white", "markeredgewidth": 2}
            return {"color": self.color, **hollow, "markersize": 7}  # a filled one beneath shows
        return {"color": self.color, "markeredgecolor": "white", "markeredgewidth": 0.8}

    @property
    def fill(self) -> dict[str, object]:
        """Return how matplotlib is to draw a bar that stands alone."""
        if self.hollow:
            return {"facecolor": "white", "edgecolor": self.color, "linewidth": 2}
        return {"color": self.color}

    @property
    def hatched(self) -> dict[str, object]:
        """Return how matplotlib is to draw a bar among others; a hatch stands for the dash."""
        solid = {"facecolor": self.color, "edgecolor": "white", "linewidth": 0}
        return (self.fill if self.hollow else solid) | {"hatch": HATCHES.get(self.dash)}


Roles = Mapping[Any, str | Look]  # {name in the data: role, or a look of its own}

# Okabe and Ito's palette without its yellow, which is too pale to be projected, and greys
GREEN, RED, BLUE, ORANGE = "#009E73", "#D55E00", "#0072B2", "#E69F00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#6A6A6A"
DASHED = (0, (4, 1.6))
DOTTED = (0, (1.3, 1.3))
DASHDOT = (0, (5, 1.4, 1.3, 1.4))
LONG = (0, (8, 1.8))
ROLES: dict[str, Look] = {
    **dict.fromkeys(("cache", "hit", "redis"), Look(GREEN, "o")),
    **dict.fromkeys(("database", "origin", "miss", "sqlite", "postgresql"), Look(RED, "s", DASHED)),
    "lost": Look(RED, "s", DASHED, hollow=True),  # among many small dots, seen in grey too
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
HATCHES: dict[object, str] = {DASHED: "//", DOTTED: "..", DASHDOT: "\\\\", LONG: "--"}
SPARE = (
    Look(BLUE, "o"),
    Look(ORANGE, "s", DASHED),
    Look(GREEN, "^", DASHDOT),
    Look(PURPLE, "D", DOTTED),
)


def assign(
    names: Iterable[Hashable], roles: Roles | str | None, other: Look, repeat: bool = False
) -> dict[Hashable, Look]:
    """Return the look of each name: its role's, else the next spare one.

    Args:
        names: What is to be told apart, in order.
        roles: The role of each name, or one role for all; a name may be a role itself.
        other: The first look for names without a role.
        repeat: Let looks repeat, where names stand beside their marks.
    """
    looks: dict[Hashable, Look | None] = {name: _own(name, roles) for name in names}
    taken: set[Look] = set()
    chosen: dict[Hashable, Look] = {}
    for name, look in looks.items():
        if look is None or (look in taken and not repeat):
            used = {one.color for one in (*looks.values(), *taken) if one}
            look = other if repeat else _spare(used, other)
            looks[name] = look
        taken.add(look)
        chosen[name] = look
    return chosen


def _own(name: Hashable, roles: Roles | str | None) -> Look | None:
    """Return the look that a name has by its role, or as a role; ValueError for an unknown role."""
    role = roles if isinstance(roles, str) else (roles or {}).get(name)
    if isinstance(role, Look):
        return role
    if role is not None and role not in ROLES:
        raise ValueError(f"roles must name one of {', '.join(map(repr, ROLES))}, not {role!r}")
    return ROLES.get(role or str(name).lower())


def _spare(used: set[str], first: Look) -> Look:
    return next((spare for spare in (first, *SPARE) if spare.color not in used), PLAIN)
