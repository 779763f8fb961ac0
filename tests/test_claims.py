"""Claims in circulation, notebooks/claims.csv: each says where it is measured, or will be."""

import csv
import re
from collections import Counter
from functools import cache
from pathlib import Path

import nbformat
import pytest

from cachelab.lab import notebooks

COLUMNS = ["id", "claim", "kind", "measured_by", "planned", "condition"]
KINDS = {"number", "rule", "unmeasurable"}
PLANNED = {"10", "13", "14", "15"}
FOUND = notebooks.numbered()


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


CLAIMS = read(notebooks.NOTEBOOKS / "claims.csv")


@cache
def places(number: str) -> set[str]:
    """Return the cells of a notebook, by id, and the figures that its code draws, by name."""
    cells = nbformat.read(FOUND[number], as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    figures = re.findall(rf'\bname"?\s*[:=]\s*"({number}_\w+)"', code)
    return {cell.id for cell in cells} | set(figures)


def wrong_with(claim: dict[str, str]) -> str:
    """Return what is wrong with a claim; "" if nothing is."""
    number, _, place = claim["measured_by"].partition(" ")
    if claim["kind"] not in KINDS:
        return f"no such kind: {claim['kind']}"
    if not all(claim[column].strip() for column in ("id", "claim", "condition")):
        return "a cell is empty"
    if bool(number) == bool(claim["planned"]):
        return "needs a place where it is measured, or else a notebook that is planned"
    if claim["planned"]:
        known = claim["planned"] in PLANNED - set(FOUND)
        return "" if known else f"not a planned notebook: {claim['planned']}"
    if number not in FOUND or place not in places(number):
        return f"no such place: {claim['measured_by']}"
    return ""


def test_every_claim_names_a_place_that_exists_or_a_notebook_that_is_planned():
    assert list(CLAIMS[0]) == COLUMNS
    assert {claim["id"]: wrong_with(claim) for claim in CLAIMS if wrong_with(claim)} == {}


def test_no_two_claims_have_one_id_or_one_text():
    for column in ("id", "claim"):
        assert [one for one, n in Counter(claim[column] for claim in CLAIMS).items() if n > 1] == []


def test_every_notebook_after_the_first_tries_a_claim():
    tried = {claim["measured_by"].partition(" ")[0] for claim in CLAIMS} - {""}
    assert tried >= set(FOUND) - {"00"}


SPOILT = {
    "another kind": {"kind": "opinion"},
    "no condition": {"condition": " "},
    "nowhere": {"measured_by": ""},
    "here and later": {"planned": "15"},
    "a notebook that is there is not planned": {"measured_by": "", "planned": "01"},
    "a figure that nobody draws": {"measured_by": "01 01_gone"},
    "another notebook's figure": {"measured_by": "01 05_methods"},
    "a cell that is gone": {"measured_by": "01 n01-999"},
    "no notebook": {"measured_by": "99 99_figure"},
}


@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT)
def test_a_claim_that_is_spoilt_would_be_seen(change):
    whole = {"id": "ladder", "claim": "c", "kind": "number", "measured_by": "01 01_ladder"}
    whole |= {"planned": "", "condition": "x"}
    assert wrong_with(whole) == "" and wrong_with(whole | change)
