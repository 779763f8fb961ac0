"""Claims in circulation, notebooks/claims.csv: each is put on trial and gets a verdict by data."""

import json
import os
import re
import shutil
from collections import Counter
from functools import cache
from html import unescape
from itertools import product

import nbformat
import numpy as np
import pandas as pd
import pytest

from cachelab.lab import claims, findings, notebooks
from cachelab.lab.claims import Case, Claimed, kept, page
from cachelab.lab.claims.bench import TRIALS, Bench
from cachelab.lab.claims.cases import over, part, sampled
from cachelab.lab.claims.rows import called

COLUMNS = "id claim kind measured_by planned condition quantity claimed unit measure short".split()
KINDS = {"number", "rule", "unmeasurable"}
FOUND = notebooks.numbered()
CLAIMS = claims.lines()
COMMITTED = notebooks.SCALES["full"]


@cache
def places(number: str) -> set[str]:
    """Return the cells of a notebook, by id, and the figures that its code draws, by name."""
    cells = nbformat.read(FOUND[number], as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    figures = re.findall(rf'\bname"?\s*[:=]\s*"({number}_\w+)"', code)
    return {cell.id for cell in cells} | set(figures)


def is_measure(text: str) -> bool:
    """Return whether there is a measure of this name."""
    if text.startswith("trial "):
        return text.removeprefix("trial ") in TRIALS
    return text in kept.NAMED or bool(kept.GENERIC.fullmatch(text))


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
        known = re.fullmatch(r"\d\db?", claim["planned"]) and claim["planned"] not in FOUND
        return "" if known else f"not a planned notebook: {claim['planned']}"
    if number not in FOUND or place not in places(number):
        return f"no such place: {claim['measured_by']}"
    if claim["measure"] and not is_measure(claim["measure"]):
        return f"no such measure: {claim['measure']}"
    return wrong_with_number(claim)


def wrong_with_number(claim: dict[str, str]) -> str:
    """Return what is wrong with what a claim says that can be measured; "" if nothing is."""
    if (claim["kind"] == "unmeasurable") == bool(claim["claimed"]):
        return "says a number, or else is unmeasurable"
    if claim["claimed"]:
        Claimed.read(claim["claimed"])
        if not claim["measure"] or not claim["quantity"]:
            return "a number needs a quantity and a measure"
    return "" if claim["unit"] in ("", "s", "%", "×") else f"no such unit: {claim['unit']}"


def test_every_claim_names_a_place_that_exists_or_a_notebook_that_is_planned():
    with open(notebooks.NOTEBOOKS / "claims.csv", encoding="utf-8") as file:
        assert file.readline().strip().split(",") == COLUMNS
    assert {claim["id"]: wrong_with(claim) for claim in CLAIMS if wrong_with(claim)} == {}


def test_no_two_claims_have_one_id_or_one_text():
    for column in ("id", "claim"):
        assert [one for one, n in Counter(claim[column] for claim in CLAIMS).items() if n > 1] == []


def test_every_notebook_after_the_first_tries_a_claim():
    tried = {claim["measured_by"].partition(" ")[0] for claim in CLAIMS} - {""}
    assert tried >= set(FOUND) - {"00"}


def test_every_experiment_is_some_claims():
    used = {claim["measure"].removeprefix("trial ") for claim in CLAIMS}
    assert used >= TRIALS.keys() | kept.NAMED.keys()


SPOILT = {
    "another kind": {"kind": "opinion"},
    "no condition": {"condition": " "},
    "nowhere": {"measured_by": ""},
    "here and later": {"planned": "14"},
    "a notebook that is there is not planned": {"measured_by": "", "planned": "01"},
    "what is planned is no notebook": {"measured_by": "", "planned": "later"},
    "a figure that nobody draws": {"measured_by": "01 01_gone"},
    "another notebook's figure": {"measured_by": "01 05_methods"},
    "a cell that is gone": {"measured_by": "01 n01-999"},
    "no notebook": {"measured_by": "99 99_figure"},
    "no such measure": {"measure": "felt"},
    "no such experiment": {"measure": "trial felt"},
    "a number that nobody measures": {"measure": ""},
    "a number of nothing": {"quantity": ""},
    "no number": {"claimed": ""},
    "a number of what cannot be measured": {"kind": "unmeasurable"},
    "no such unit": {"unit": "miles"},
}


@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT)
def test_a_claim_that_is_spoilt_would_be_seen(change):
    whole = {"id": "ladder", "claim": "c", "kind": "number", "measured_by": "01 01_ladder"}
    whole |= {"planned": "", "condition": "x", "quantity": "q", "unit": "×"}
    whole |= {"claimed": "about 2", "measure": "shown: Redis"}
    assert wrong_with(whole) == "" and wrong_with(whole | change)


@pytest.mark.parametrize("text", ["", "25", "about", "about x", "exactly 1 to 2", "some 5"])
def test_what_says_no_number_is_refused(text):
    with pytest.raises(ValueError, match="claimed must be such as 'about 25' or '5 to 10'"):
        Claimed.read(text)


# Verdicts


def case(low: float, high: float, at: float | None = None, **more) -> Case:
    return Case(f"at {low:g}", (low + high) / 2, low, high, at=at, **more)


VERDICTS = {
    "holds": ("about 10", [case(6, 19), case(9, 9)]),
    "holds when": ("about 10", [case(6, 19), case(21, 30)]),
    "holds when, in part": ("at most 5", [case(1, 2), case(4, 6)]),
    "holds when, in between": (
        "25 to 26",
        [case(1, 2, at=1.0), case(24, 27, 2.0), case(90, 99, 3)],
    ),
    "holds when, between two of which one reaches near": (
        "about 20",
        [case(5, 12, at=1.0), case(45, 60, 2.0)],
    ),
    "does not hold, on one side of it": ("about 20", [case(1, 2, at=1.0), case(5, 9, 2.0)]),
    "does not hold": ("exactly 0", [case(3, 3)]),
    "does not hold, in between": ("25 to 26", [case(1, 2), case(90, 99)]),
    "does not hold, though it may be mended": ("exactly 0", [case(3, 3), case(0, 0, instead=True)]),
    "not decided": ("more than 1", [case(0.9, 1.2)]),
    "not decided, around it": ("1 to 2", [case(0.1, 9)]),
    "not measured yet": ("exactly 0", [case(0, 0, instead=True)]),
}


@pytest.mark.parametrize("expected", VERDICTS)
def test_a_verdict_follows_from_the_intervals_of_the_cases(expected):
    text, cases = VERDICTS[expected]
    assert claims.judged(Claimed.read(text), cases).word == expected.split(",")[0]


def test_without_a_number_there_is_no_verdict_whatever_was_measured():
    assert claims.judged(None, [case(1, 1)]).word == "cannot be measured"


def test_what_lies_between_two_cases_names_them():
    text, cases = VERDICTS["holds when, in between"]
    assert claims.judged(Claimed.read(text), cases).speak_for == ["between 1 and 90"]


def test_the_interval_of_a_median_holds_it_in_99_of_100_samples():
    rng = np.random.default_rng(0)
    ends = [sampled("", rng.exponential(size=99)) for _ in range(1000)]
    missed = sum(not one.low <= np.log(2) <= one.high for one in ends)
    assert missed < 25
    assert sum(not one.low <= 1.0 <= one.high for one in ends) > 300  # control: the mean


def test_the_interval_of_a_share_is_wide_where_few_were_tried():
    assert part("", 5, 10).high - part("", 5, 10).low > 5 * (
        part("", 500, 1000).high - part("", 500, 1000).low
    )


def test_the_interval_of_a_ratio_holds_the_ratio_of_every_pair():
    one, other = case(2, 4), case(5, 10)
    ratio = over("", one, other)
    ends = [a / b for a, b in product((2, 4), (5, 10))]
    assert (ratio.low, ratio.high) == (min(ends), max(ends))


# From data to rows


@pytest.fixture(scope="module")
def rows():
    """The rows of all claims by the committed data, without the experiments of notebook 15."""
    with pytest.MonkeyPatch.context() as patch:
        committed = notebooks.NOTEBOOKS.parent / "charts"  # whatever lies in charts/local
        patch.setenv("CACHELAB_CHARTS", str(committed))
        return claims.on_trial(trials=False, progress=False)


def test_every_claim_has_its_row_in_the_order_of_the_file(rows):
    assert [row.id for row in rows] == [claim["id"] for claim in CLAIMS]


def test_every_measure_of_a_figure_finds_cases_in_the_committed_data(rows):
    drawn = [row for row in rows if row.measure and not row.measure.startswith("trial ")]
    assert {row.id: row.origin for row in drawn if not row.measured} == {} and len(drawn) > 60


def test_a_row_says_of_which_scale_and_day_its_data_are(rows):
    told = {row.id: row.origin for row in rows}
    assert re.match(r"01_ladder, (full|quick), \d{4}-\d\d-\d\d", told["cache-100x"])


@pytest.fixture
def kept_apart(tmp_path, monkeypatch):
    """Return a folder, the only one in which figures are looked for."""
    monkeypatch.setattr(kept, "folders", lambda: [tmp_path])
    return tmp_path


def tried(id: str) -> claims.Row:
    """Return the row of one claim, from kept data."""
    told = [claim for claim in CLAIMS if claim["id"] == id]
    return claims.on_trial(trials=False, progress=False, told=told)[0]


def test_other_data_give_another_verdict(kept_apart):
    for file in COMMITTED.glob("03_falsy.*"):
        shutil.copy(file, kept_apart)
    assert tried("if-result").verdict.word == "holds when"
    df = pd.read_csv(kept_apart / "03_falsy.csv").assign(loads=1)
    df.to_csv(kept_apart / "03_falsy.csv", index=False)
    assert tried("if-result").verdict.word == "holds"


def test_a_figure_that_is_missing_or_another_one_is_told_in_its_row(kept_apart):
    row = tried("if-result")
    assert row.verdict.word == "not measured yet" and "charts --only 03" in row.origin
    for file in COMMITTED.glob("03_absent.*"):
        name = file.name.replace("03_absent", "03_falsy")
        (kept_apart / name).write_bytes(file.read_bytes())
    about = json.loads((kept_apart / "03_falsy.json").read_text())
    about["charts"][0]["data"] = "03_falsy.csv"
    (kept_apart / "03_falsy.json").write_text(json.dumps(about))
    assert "has not what" in tried("if-result").origin


def test_data_that_are_older_than_the_notebook_are_told_so(kept_apart):
    for file in COMMITTED.glob("03_falsy.*"):
        shutil.copy2(file, kept_apart)
    written = FOUND["03"].stat().st_mtime_ns
    for seconds, is_older in ((-60, True), (60, False)):
        at = written + seconds * 10**9
        os.utime(kept_apart / "03_falsy.json", ns=(at, at))
        assert kept.find("03_falsy").is_older == is_older


def figure(df: pd.DataFrame, **arguments) -> kept.Figure:
    chart = {"df": df, "arguments": arguments, "kind": "timeline"}
    return kept.Figure("13_faults", [chart], "quick", "2026-11-30", is_older=False)


def test_a_fault_is_noticed_if_an_alert_begins_soon_and_while_it_lasts():
    begins = {"copied": (1, 20), "ours": (3, 12)}  # before the first fault and late in the second
    tidy = [(at, rules, at in begins[rules]) for rules in begins for at in range(30)]
    df = pd.DataFrame(tidy, columns=["at", "rules", "alerts"]).astype({"alerts": int})
    cases = kept.cases_of(figure(df, shade={"killed": (2, 8), "frozen": (10, 25)}), "noticed")
    assert [(one.value, one.instead) for one in cases] == [(0, False), (2, True)]


def test_what_a_line_ends_with_is_its_last_value_in_time_and_not_in_the_file():
    df = pd.DataFrame({"at": [2, 1, 1, 2], "form": [*"aabb"], "ratio": [0.5, 3, 0.1, 4]})
    cases = kept.cases_of(figure(df, x="at", y="ratio", by="form"), "in_the_end")
    assert [(one.name, one.value, one.instead) for one in cases] == [
        ("a", 0.5, False),
        ("b", 4, True),
    ]


def test_warming_is_compared_with_a_cold_cache_by_all_its_reads():
    rows = [("cold", 1, 100, 10, 90), ("cold", 2, 900, 290, 610)]
    rows += [("warmed", 1, 100, 90, 150), ("warmed", 3, 900, 9, 200)]
    df = pd.DataFrame(rows, columns=["variant", "seconds", "reads", "hits", "loads"])
    (hits,), (loads,) = (kept.cases_of(figure(df), f"{name}_to_cold") for name in ("warm", "loads"))
    assert (hits.value, loads.value) == (0.9 / 0.3, 350 / 700)


def test_a_claim_whose_notebook_is_not_written_waits_for_it(rows):
    planned = {"id": "p", "claim": "c", "kind": "rule", "measured_by": "", "planned": "99"}
    planned |= {"condition": "x"} | dict.fromkeys(COLUMNS[6:], "")
    (row,) = claims.on_trial(told=[planned], progress=False)
    assert row.verdict.word == "not measured yet" and "notebook 99" in row.origin


QUICK = {  # of a claim, what its experiment is to show on any machine
    "bare-except": ("does not hold", 3.0),
    "made-up-data": ("holds when", 2.0),
    "get-event-loop": ("holds when", 1.0),
    "all-tasks": ("does not hold", 4.0),
    "thread-safe-cache": ("does not hold", 20.0),
    "decode-responses": ("holds when", 1.0),
    "pipeline-trip": ("holds", 1.0),
    "session-per-user": ("does not hold", 1.0),
    "api-key-hash": ("does not hold", 2.0),
    "feed-page-key": ("does not hold", 20.0),
    "cart-24h": ("does not hold", 86_400.0),
    "cart-int-keys": ("does not hold", 1.0),
    "microservices": ("does not hold", 1.0),
    "decorator-timing": ("does not hold", 1.0),
    "password-enough": ("does not hold", 4.0),
}


@pytest.fixture(scope="module")
def bench():
    with Bench() as bench:
        yield bench


@pytest.mark.parametrize("id", QUICK)
def test_an_experiment_gives_the_cases_of_its_claim(id, bench):
    (claim,) = [claim for claim in CLAIMS if claim["id"] == id]
    cases = TRIALS[claim["measure"].removeprefix("trial ")](bench)
    word, first = QUICK[id]
    assert (claims.judged(Claimed.read(claim["claimed"]), cases).word, cases[0].value) == (
        word,
        first,
    )


MENDED = {  # of a claim, what its experiment shows of what mends it
    "session-per-user": 2.0,
    "api-key-hash": 1.0,
    "cart-int-keys": 2.0,
    "microservices": 2.0,
    "decorator-timing": 3.0,
    "password-enough": 0.0,
    "renewed-ttl": 31 / 60,
}


@pytest.mark.parametrize("id", MENDED)
def test_what_mends_a_claim_would_let_it_hold(id, bench):
    (claim,) = [claim for claim in CLAIMS if claim["id"] == id]
    cases = TRIALS[claim["measure"].removeprefix("trial ")](bench)
    (mended,) = [case for case in cases if case.instead]
    assert Claimed.read(claim["claimed"]).has(mended.value) and mended.value == MENDED[id]


# The page and the chart


def test_the_page_has_every_claim_and_no_outside_part(rows, tmp_path):
    file = claims.export(rows, tmp_path / "page.html")
    text = file.read_text(encoding="utf-8")
    assert [row.id for row in rows if f'<tr id="{row.id}">' not in text] == []
    assert [row.claim for row in rows if row.claim not in unescape(text)] == []
    outside = r"https?:|<script|<link|<img|\bsrc=|\burl\((?!#)|@import"
    assert re.findall(outside, text) == [] and re.search(outside, f'{text}<img src="x">')


def test_the_links_of_the_page_lead_to_notebooks(rows, tmp_path):
    for folder in (tmp_path, notebooks.SCALES["quick"]):
        links = set(re.findall(r'href="([^"]+\.ipynb)"', page.html(rows, folder)))
        assert len(links) > 15 and all((folder / link).resolve().exists() for link in links)


def test_the_page_is_written_among_the_charts_of_the_run(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    claims.export(rows[:40])
    assert (tmp_path / "15_claims.html").exists()


def test_the_ratios_are_the_numbers_that_have_no_unit_with_all_their_cases(rows):
    df = claims.ratios(rows)
    ids = {row.id for row in rows if row.kind == "number" and row.unit == "×" and row.measured}
    told = {row.id: called(row) for row in rows if row.id in ids}
    assert told["set-pipeline-25x"] == "pipeline of SETs: 25×"
    assert set(df["claim"]) == set(told.values()) and len(ids) >= 6
    seen = df[df["source"] == "measured"].groupby("claim").size()
    assert seen.to_dict() == {told[row.id]: len(row.measured) for row in rows if row.id in ids}


def test_every_ratio_in_circulation_has_short_words_for_its_row_in_the_chart():
    drawn = [one for one in CLAIMS if one["kind"] == "number" and one["unit"] == "×"]
    assert drawn and [one["id"] for one in drawn if not 0 < len(one["short"]) <= 28] == []
    assert len({one["short"] for one in drawn}) == len(drawn)


def test_a_chart_of_one_claim_shows_it_beside_each_case(rows):
    row = next(row for row in rows if row.id == "set-pipeline-25x")
    words = claims.case_chart(row).alt
    assert words.count("claimed 25×") == len(row.measured) == words.count("measured")


def test_two_runs_of_such_a_chart_are_compared_case_by_case(rows, tmp_path, monkeypatch):
    for folder in ("first", "second"):
        monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path / folder))
        page.ratio_chart(rows, name="15_ratios")
    compared = findings.compare(tmp_path / "first", tmp_path / "second")
    assert compared["agrees"].all() and "measured, batches: 50×" in set(compared["finding"])
