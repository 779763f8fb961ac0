"""Cases: what was measured of a claim under one condition each, and the verdict that follows.

A claim says a number of a quantity, in one of these forms: "about 25", "5 to 10", "exactly 0",
"at least 2", "at most 2", "more than 1", "less than 1". "About" is taken kindly: from half
to double. A case speaks for the claim if its whole interval lies in what is
claimed, against it if none of it does; else it is open.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple, Self

import numpy as np

ABOUT = 2.0  # times, either way: as far as a round number reaches
LEVEL = 0.99  # of the intervals, as in `cachelab.lab.findings`
FEW = 8  # measurements: of fewer the interval is all of them
HOLDS, WHEN, NOT = "holds", "holds when", "does not hold"
OPEN, CANNOT, ABSENT = "not decided", "cannot be measured", "not measured yet"
VERDICTS = (HOLDS, WHEN, NOT, OPEN, CANNOT, ABSENT)
FORMS = r"(about|exactly|at least|at most|more than|less than)? ?([\d.e-]+)(?: to ([\d.e-]+))?"

_ENDS = NormalDist().inv_cdf((1 + LEVEL) / 2)


class Claimed(NamedTuple):
    """A number as a claim says it, in the unit of the quantity."""

    form: str
    low: float
    high: float
    reach: float = ABOUT  # of "about", either way

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what a claim says.

        Raises:
            ValueError: It has none of the forms.

        >>> Claimed.read("about 25")[:3], Claimed.read("5 to 10")[:3]
        (('about', 25.0, 25.0), ('to', 5.0, 10.0))
        """
        found = re.fullmatch(FORMS, text.strip())
        if not found or bool(found[1]) == bool(found[3]):
            raise ValueError(f"claimed must be such as 'about 25' or '5 to 10', not {text!r}")
        return cls(found[1] or "to", float(found[2]), float(found[3] or found[2]))

    def has(self, value: float) -> bool:
        """Return whether a value is what is claimed."""
        match self.form:
            case "about":
                return self.low / self.reach <= value <= self.high * self.reach
            case "at least":
                return value >= self.low
            case "at most":
                return value <= self.high
            case "more than":
                return value > self.low
            case "less than":
                return value < self.high
        return self.low <= value <= self.high

    def side(self, case: "Case") -> int:
        """Return 1 for a case that lies wholly above what is claimed, -1 below, 0 neither."""
        ends = case.low, case.high
        if any(map(self.has, ends)) or ends[0] < self.middle < ends[1]:
            return 0
        return 1 if case.value > self.middle else -1

    def beside(self, case: "Case") -> int:
        """Return 1 for a case whose interval lies above the claimed number, -1 below, 0 around."""
        return int(case.low > self.middle) - int(case.high < self.middle)

    @property
    def middle(self) -> float:
        """The number that stands for the claim in a chart."""
        return math.sqrt(self.low * self.high) if self.low < self.high else self.low


@dataclass(frozen=True)
class Case:
    """What was measured under one condition, with its interval.

    Args:
        name: The condition.
        value, low, high: In the unit of the quantity; of what was counted all three are one.
        n: How many measurements.
        predicted: What a model says, if there is one.
        at: Where the case stands on the axis of a curve, along which values change steadily.
        instead: Not what the claim advises, but what mends it.
    """

    name: str
    value: float
    low: float
    high: float
    n: int = 1
    predicted: float | None = None
    at: float | None = None
    instead: bool = False


class Verdict(NamedTuple):
    """A verdict, and the names of the cases that speak for the claim and against it."""

    word: str
    speak_for: list[str]
    speak_against: list[str]


def counted(name: str, value: float, n: int = 1, predicted: float | None = None) -> Case:
    """Return a case of what was counted, or follows from counts: it has no interval."""
    return Case(name, float(value), float(value), float(value), n, predicted)


def sampled(
    name: str,
    values: Sequence[float] | np.ndarray,
    share: float = 0.5,
    predicted: float | None = None,
) -> Case:
    """Return a case of measurements: their median, or another quantile, with its interval.

    The interval is that of order statistics, which asks for no shape of the distribution.

    >>> sampled("GET", range(1, 101)).value, sampled("GET", [3, 1, 2]).high
    (50.0, 3.0)
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    value = float(np.quantile(ordered, share, method="inverted_cdf"))
    reach = math.inf if n < FEW else _ENDS * math.sqrt(n * share * (1 - share))
    low = max(0.0, n * share - reach - 1)
    high = min(n - 1.0, n * share + reach)
    ends = float(ordered[int(low)]), float(ordered[math.ceil(high)])
    return Case(name, value, *ends, n, predicted)


def part(name: str, hits: float, n: int) -> Case:
    """Return a case of a share of n trials, with Wilson's interval.

    >>> part("stale", 0, 1000).low, part("stale", 500, 1000).value
    (0.0, 0.5)
    """
    share, square = hits / n, _ENDS**2 / n
    middle = share + square / 2
    reach = _ENDS * math.sqrt(share * (1 - share) / n + square / (4 * n))
    low, high = ((middle + sign * reach) / (1 + square) for sign in (-1, 1))
    low, high = (share, share) if share in (0, 1) else (low, high)  # none and all are exact
    return Case(name, share, low, high, n)


def over(name: str, one: Case, other: Case) -> Case:
    """Return a case of how many times the first is the second; its interval holds every pair."""
    model = one.predicted / other.predicted if one.predicted and other.predicted else None
    ends = one.low / other.high, one.high / other.low if other.low else math.inf
    n = max(one.n, other.n)
    return Case(name, one.value / other.value, *ends, n, model, one.at, one.instead)


def instead(case: Case) -> Case:
    """Return the case as one of what mends the claim."""
    return replace(case, instead=True)


def judged(claimed: Claimed | None, cases: Sequence[Case]) -> Verdict:
    """Return the verdict that follows from the cases; what mends a claim has no voice.

    All speak for it: it holds. Some do, or along an axis the claimed number lies between two of
    them: it holds when. None does, and some speak against it: it does not hold. All are open: these
    data do not decide.
    """
    if claimed is None:
        return Verdict(CANNOT, [], [])
    heard = [case for case in cases if not case.instead]
    if not heard:
        return Verdict(ABSENT, [], [])
    yes = [one.name for one in heard if claimed.has(one.low) and claimed.has(one.high)]
    sides = {one.name: claimed.side(one) for one in heard}
    no = [name for name, side in sides.items() if side]
    along = [claimed.beside(one) for one in heard if one.at is not None]
    if yes:
        return Verdict(HOLDS if len(yes) == len(heard) else WHEN, yes, no)
    if {-1, 1} <= {*along}:
        return Verdict(WHEN, [_between(claimed, heard)], no)
    return Verdict(NOT if no else OPEN, [], no)


def _between(claimed: Claimed, cases: Sequence[Case]) -> str:
    """Return between which two neighbours on an axis the claimed number lies."""
    line = sorted((one for one in cases if one.at is not None), key=lambda one: one.at or 0.0)
    sides = [claimed.beside(one) for one in line]
    at = next(i for i in range(1, len(line)) if {*sides[: i + 1]} >= {-1, 1})
    before = max(i for i in range(at) if sides[i] == -sides[at])
    ends = (line[i].name.removeprefix("at ") for i in (before, at))
    return "between " + " and ".join(ends)
