"""The teacher's sheets: every prediction has its row and its minute, every path its notebooks."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cachelab.__main__ import main
from cachelab.cli import teach
from cachelab.errors import CachelabError
from cachelab.lab import notebooks

TOLD = {"question": "How long?", "usual": "1 | 2", "say": "Look\nagain.", "wait": "none"}
FOUND = notebooks.numbered()


def guess(**told):
    metadata = {"teacher": TOLD | told}
    return new_code_cell("guess = None  # your guess, before you run on", metadata=metadata)


@pytest.fixture
def small(tmp_path):
    """A notebook of two predictions: before the second stand two minutes of words, an exercise."""
    cells = [
        new_markdown_cell("# 07 Small — how small?"),
        guess(),
        new_markdown_cell("word " * 400),
        new_code_cell('draw(name="07_small")'),
        new_code_cell("pass", metadata={"tags": ["exercise"]}),
        guess(question="How often?"),
    ]
    about = {"cachelab": {"question": "how small?", "minutes": 8}}
    path = tmp_path / "07_small.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=about), path)
    return path


def rows(sheet: str) -> list[list[str]]:
    """Return the cells of the rows of the predictions in a sheet."""
    found = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", sheet, re.M)
    return [list(row) for row in found]


def test_the_sheet_of_a_notebook_has_a_row_for_each_prediction(small):
    sheet = teach.sheet(small)
    assert sheet.startswith("# 07 Small: for the teacher\n\nhow small? 8 minutes.\n")
    assert rows(sheet) == [
        ["0", "How long?", r"1 \| 2", "Look again.", "none"],
        ["5", "How often?", r"1 \| 2", "Look again.", "none"],
    ]


def test_a_path_stops_at_its_figure_and_its_clock_runs_on(small):
    way = teach.Way("A way", "Slowly.", {"07": "07_small", "08": ""})
    sheet = teach.path_sheet(way, {"07": small, "08": small})
    assert "| 0 | 07 Small | the figure 07_small | 1 |\n| 2 | 07 Small | its end | 2 |" in sheet
    assert "| 10 | end |" in sheet and [row[0] for row in rows(sheet)] == ["0", "2", "7"]


def test_a_prediction_that_lacks_a_field_is_named_with_its_cell(small):
    nb = nbformat.read(small, as_version=4)
    nb.cells[5].metadata["teacher"].pop("say")
    nbformat.write(nb, small)
    with pytest.raises(CachelabError, match=r"07_small.ipynb, cell 6: .* lacks say; .* fill them"):
        teach.sheet(small)


def test_a_figure_that_nobody_draws_is_named_with_the_way_out(small):
    with pytest.raises(CachelabError, match=r"no figure '07_gone'.* in PATHS of"):
        teach.predictions(small, "07_gone")


@pytest.mark.parametrize("number", FOUND)
def test_every_guess_of_a_notebook_stands_in_its_sheet_at_a_minute_of_its_own(number):
    nb = nbformat.read(FOUND[number], as_version=4)
    code = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    guesses = [source for source in code if re.search(r"^\(?guess\w*\b.* = ", source, re.M)]
    found = teach.predictions(FOUND[number])
    minutes = [int(row[0]) for row in found]
    assert len(found) == len(guesses) > 0 and minutes == sorted(minutes)
    assert minutes[-1] < notebooks.card(FOUND[number])["minutes"]


@pytest.mark.parametrize("path", teach.PATHS)
def test_a_path_takes_each_prediction_of_its_notebooks_in_the_order_of_the_clock(path, capsys):
    assert main(["teach", "--path", path]) == 0
    sheet = capsys.readouterr().out
    upto = teach.PATHS[path].upto or dict.fromkeys(FOUND, "")
    counts = [len(teach.predictions(FOUND[number], upto[number])) for number in upto]
    minutes = [int(row[0]) for row in rows(sheet)]
    end = int(re.search(r"^\| (\d+) \| end", sheet, re.M)[1])
    assert len(minutes) == sum(counts) and all(counts)
    assert minutes == sorted(minutes) and minutes[-1] < end


def test_the_first_notebook_tells_the_same_paths():
    nb = nbformat.read(FOUND["00"], as_version=4)
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    (table,) = re.findall(r"^\| you have \| take .*\n\|[-|]+\|\n((?:\|.*\n)+)", prose, re.M)
    taken = [
        re.findall(r"(?:^|[;,] )(\d\d[a-z]?)\b", row.split(" | ")[1]) for row in table.splitlines()
    ]
    assert taken == [list(way.upto) for way in teach.PATHS.values()]
    assert "all of them" in table.splitlines()[-1] and not teach.PATHS["self-study"].upto


def test_sheets_are_printed_or_written_for_the_notebooks_that_are_named(tmp_path, capsys):
    assert main(["teach", "01", "00", "01"]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^# (\d\d)", printed, re.M) == ["01", "00"]
    file = tmp_path / "sheets.md"
    assert main(["teach", "01", "00", "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"Sheets written to {file}\n"
    assert file.read_text(encoding="utf-8") == printed


def test_without_a_name_every_notebook_has_its_sheet(capsys):
    assert main(["teach"]) == 0
    assert re.findall(r"^# (\d\d\w?) ", capsys.readouterr().out, re.M) == list(FOUND)


BAD = {
    "99": "number must be one of '00', ",
    "--path hour": "path must be one of 'class', 'half-day', 'self-study', not 'hour'",
    "01 --path class": "--path class names its notebooks itself: leave out 01",
    "01 --output nowhere/sheet.md": "No such file or directory: 'nowhere/sheet.md'",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_argument_is_told_in_one_line(line, capsys):
    assert main(["teach", *line.split()]) == 2
    out, errors = capsys.readouterr()
    assert BAD[line] in errors and errors.count("\n") == 1 and out == ""


def test_a_copy_without_notebooks_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "found", lambda: [])
    assert main(["teach"]) == 2
    assert "run this in a clone of the project" in capsys.readouterr().err


def test_help_teaches_with_examples_on_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="^0$"):
        main(["teach", "--help"])
    told = capsys.readouterr().out
    assert "  python -m cachelab teach 01" in told and max(map(len, told.splitlines())) <= 80
