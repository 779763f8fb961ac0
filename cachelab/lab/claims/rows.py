"""Rows: each claim of notebooks/claims.csv with what was measured of it, and its verdict."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from cachelab.errors import CachelabError
from cachelab.lab import notebooks, scale
from cachelab.lab.claims import (  # noqa: F401 (their experiments)
    apps,
    batches,
    caching,
    clients,
    kept,
    loops,
    watching,
)
from cachelab.lab.claims.bench import TRIALS, Bench
from cachelab.lab.claims.cases import ABSENT, VERDICTS, Case, Claimed, Verdict, judged
from cachelab.lab.draw.figures import environment
from cachelab.lab.draw.units import written

FILE = notebooks.NOTEBOOKS / "claims.csv"
COLUMNS = "id claim kind measured_by planned condition quantity claimed unit measure short".split()
HERE = "trial "  # begins a measure that is a short experiment, made as the rows are


@dataclass(frozen=True)
class Row:
    """A claim on trial.

    Args:
        id, claim, kind, place, condition, quantity, unit, measure: As claims.csv has them; place is
            "NN figure", "NN cell", or "" for a notebook that is not written yet.
        claimed: The number that the claim says of the quantity; None if no number can be had.
        cases: What was measured, under each condition.
        origin: Where from: the scale and the day, or why there are none.
        short: What to call it in a chart of many claims.
    """

    id: str
    claim: str
    kind: str
    place: str
    condition: str
    quantity: str
    unit: str
    measure: str
    claimed: Claimed | None
    said: str = ""
    cases: list[Case] = field(default_factory=list)
    origin: str = ""
    short: str = ""

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict that follows from the cases."""
        if self.claimed is None and self.kind != "unmeasurable":
            return Verdict(ABSENT, [], [])
        return judged(self.claimed, self.cases)

    @property
    def measured(self) -> list[Case]:
        """The cases of what the claim advises."""
        return [case for case in self.cases if not case.instead]

    def written(self, case: Case) -> str:
        """Return a case in words: value, interval, n, and what a model says."""
        value, low, high = (written(x, self.unit) for x in (case.value, case.low, case.high))
        spread = "" if case.low == case.high else f" ({low} to {high})"
        n = f", n = {case.n:,}" if case.n > 1 else ""
        model = case.predicted
        expected = "" if model is None else f"; predicted {written(model, self.unit)}"
        return f"{case.name}: {value}{spread}{n}{expected}"

    def frame(self) -> pd.DataFrame:
        """Return what is claimed and each case as a frame: case, source, value, low, high."""
        told: list[tuple] = [
            (case.name, "instead" if case.instead else "measured", case.value, case.low, case.high)
            for case in self.cases
        ]
        told += [
            (case.name, "predicted", *[case.predicted] * 3)
            for case in self.cases
            if case.predicted is not None
        ]
        if self.claimed:
            ends = self.claimed.middle, self.claimed.low, self.claimed.high
            told = [(case.name, "claimed", *ends) for case in self.measured] + told
        return pd.DataFrame(told, columns=["case", "source", "value", "low", "high"])

    def link(self) -> tuple[str, str]:
        """Return the file of the notebook that treats the claim, and what to call the place."""
        number, _, place = self.place.partition(" ")
        file, label = _card(number)
        name = place if place.startswith(f"{number}_") else ""
        return file, " ".join(filter(None, [label, name]))


def lines(file: Path = FILE) -> list[dict[str, str]]:
    """Return the lines of claims.csv; what a line leaves out at its end is empty.

    Raises:
        NotebookError: This is no clone, and so there are no notebooks and no claims.
    """
    notebooks.numbered()
    with open(file, newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text, restval=""))


def on_trial(
    trials: bool = True, progress: bool = True, told: Iterable[dict[str, str]] | None = None
) -> list[Row]:
    """Return a row for each claim, from what figures have kept and from short experiments.

    A claim whose data are missing is a row too, which says so.

    Args:
        trials: Make the experiments, some 20 seconds on servers of their own. Without, their claims
            are not measured yet.
        progress: Show a bar meanwhile.
        told: Lines of claims.csv; None: all.
    """
    told = lines() if told is None else list(told)
    with Bench() as bench:
        made: dict[str, list[Case]] = {}

        def tried(name: str) -> list[Case]:
            if name not in made:
                made[name] = TRIALS[name](bench)
            return made[name]

        bar = tqdm(told, desc="On trial", delay=1, leave=False, disable=not progress)
        return [_row(line, tried if trials else None) for line in bar]


def _row(line: dict[str, str], tried: Callable[[str], list[Case]] | None) -> Row:
    measure = line["measure"].strip()
    cases: list[Case] = []
    if line["planned"]:
        origin = f"notebook {line['planned']} is to measure it"
    elif not measure:
        origin = "" if line["kind"] == "unmeasurable" else "its data are not kept"
    else:
        try:
            cases, origin = _measured(line["measured_by"], measure, tried)
        except (CachelabError, OSError, LookupError, ValueError) as error:
            origin = " ".join(str(error).split()) or type(error).__name__
    claimed = Claimed.read(line["claimed"]) if line["claimed"] else None
    told = {key: line[key] for key in ("id", "claim", "kind", "condition", "quantity", "unit")}
    place = line["measured_by"] or line["planned"]
    said = _said(line["claimed"], line["unit"], claimed)
    return Row(
        **told,
        place=place,
        measure=measure,
        claimed=claimed,
        said=said,
        cases=cases,
        origin=origin,
        short=line.get("short", ""),
    )


def _measured(
    place: str, measure: str, tried: Callable[[str], list[Case]] | None
) -> tuple[list[Case], str]:
    """Return the cases of a claim, and where they come from."""
    if measure.startswith(HERE):
        if tried is None:
            return [], "measured in notebook 15"
        return tried(measure.removeprefix(HERE)), f"here, {scale()}, {environment()['date']}"
    figure = kept.find(place.partition(" ")[2])
    older = ", older than the notebook's code" if figure.is_older else ""
    origin = f"{figure.name}, {figure.scale}, {figure.date}{older}"
    return kept.cases_of(figure, measure), origin


def _said(text: str, unit: str, claimed: Claimed | None) -> str:
    """Return what is claimed in words, its numbers with their unit."""
    if claimed is None:
        return ""
    numbers = [written(one, unit) for one in dict.fromkeys((claimed.low, claimed.high))]
    form = "" if claimed.form == "to" else f"{claimed.form} "
    return form + " to ".join(numbers)


@cache
def _card(number: str) -> tuple[str, str]:
    """Return a notebook's file and label; of one that is not there yet its number alone."""
    path = notebooks.numbered().get(number)
    return (path.name, notebooks.card(path)["label"]) if path else ("", f"notebook {number}")


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows for people: claim, claimed, predicted, measured, verdict, condition, where."""
    return pd.DataFrame(
        [
            {
                "id": row.id,
                "claim": row.claim,
                "quantity": row.quantity,
                "claimed": row.said,
                "predicted": predicted(row),
                "measured": "; ".join(map(row.written, row.measured)),
                "instead": "; ".join(row.written(case) for case in row.cases if case.instead),
                "verdict": row.verdict.word,
                "holds for": "; ".join(row.verdict.speak_for),
                "not for": "; ".join(row.verdict.speak_against),
                "condition": row.condition,
                "where": row.link()[1],
                "from": row.origin,
            }
            for row in rows
        ]
    ).set_index("id")


def counts(rows: Iterable[Row]) -> pd.Series:
    """Return how many claims have each verdict, in the order of the verdicts."""
    words = pd.Categorical([row.verdict.word for row in rows], VERDICTS)
    return words.value_counts().rename_axis("verdict").rename("claims")


def is_ratio(row: Row) -> bool:
    """Return whether a claim's number is a ratio that is in circulation, and was measured."""
    return row.unit == "×" and row.kind == "number" and bool(row.measured)


def called(row: Row) -> str:
    """Return what a claim is called in a chart of many: short words, and its number."""
    number = row.said.removeprefix("about ")
    for words, sign in (("at least ", "≥\u00a0"), ("at most ", "≤\u00a0")):
        number = number.replace(words, sign)
    return f"{row.short or row.claim.rstrip('.')}: {number}"


def ratios(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the claims whose number is a ratio, for one chart.

    Returns:
        claim in short words, source (claimed, predicted, measured), ratio, ratio_low, ratio_high:
        one row for what is claimed, one for each case, and one for what a model says of it.
    """
    told: list[tuple] = []
    for row in rows:
        if not row.claimed or not is_ratio(row):
            continue
        name = called(row)
        told.append((name, "claimed", row.claimed.middle, row.claimed.low, row.claimed.high))
        told += [
            (name, "predicted", *[case.predicted] * 3) for case in row.measured if case.predicted
        ]
        told += [(name, "measured", case.value, case.low, case.high) for case in row.measured]
    return pd.DataFrame(told, columns=["claim", "source", "ratio", "ratio_low", "ratio_high"])


def predicted(row: Row) -> str:
    """Return what models say of a claim's cases, in words."""
    told = [
        written(case.predicted, row.unit) for case in row.measured if case.predicted is not None
    ]
    return "; ".join(dict.fromkeys(told))
