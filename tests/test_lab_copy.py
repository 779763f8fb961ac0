"""The copy that learners work in: made once, kept as they left it, never over what they wrote."""

import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import cachelab as cl
from cachelab.__main__ import main
from cachelab.cli import lab
from cachelab.lab import notebooks

ROOT = notebooks.ROOT
FIRST = "00_start.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def clone(tmp_path) -> Path:
    """A clone with one notebook that carries an output, its picture and its solution."""
    clone = tmp_path / "clone"
    answers = ("solutions/00_add.py", "solutions/00_add.wrong.py")
    for name in ("images/flow.svg", "lab/base.html.j2", *answers):
        (clone / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / "notebooks" / name).write_text("one")
    write(clone / "notebooks" / FIRST, "guess = None")
    return clone


@pytest.fixture
def work(clone, tmp_path) -> Path:
    """A copy of it as the first start makes it."""
    assert len(list(lab.update(tmp_path / "work", clone))) == 1
    return tmp_path / "work"


def write(path: Path, source: str) -> None:
    out = new_output("stream", name="stdout", text="the answer\n")
    cells = [new_markdown_cell("# 00 Start"), new_code_cell(source, outputs=[out])]
    nbformat.write(new_notebook(cells=cells), path)


def sources(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, 4).cells]


def edit(path: Path, change) -> None:
    nb = nbformat.read(path, 4)
    change(nb)
    nbformat.write(nb, path)


def guessed(nb) -> None:
    nb.cells[1].source = "guess = 5"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_a_copy_has_no_outputs_and_holds_pictures_and_solutions_but_no_wrong_answers(work):
    assert nbformat.read(work / "notebooks" / FIRST, 4).cells[1].outputs == []
    for name in ("images/flow.svg", "lab/base.html.j2"):
        assert (work / "notebooks" / name).exists()
    assert [path.name for path in (work / "notebooks/solutions").iterdir()] == ["00_add.py"]


def test_a_second_start_changes_nothing_and_says_nothing(clone, work):
    edit(work / "notebooks" / FIRST, guessed)
    before = contents(work)
    assert list(lab.update(work, clone)) == [] and contents(work) == before


def run_and_saved(nb) -> None:
    """Do what JupyterLab does to a notebook that was run and not edited."""
    nb.cells[1].outputs, nb.cells[1].execution_count = [new_output("stream", text="5\n")], 1
    nb.cells[1].metadata["scrolled"] = nb.metadata["language_info"] = {"name": "python"}
    nb.cells.append(new_code_cell(""))


def test_a_changed_notebook_replaces_one_that_was_only_run(clone, work):
    edit(work / "notebooks" / FIRST, run_and_saved)
    write(clone / "notebooks" / FIRST, "guess = None  # a number")
    (said,) = lab.update(work, clone)
    assert said == "00_start.ipynb has changed: the new one has replaced the old one."
    assert sources(work / "notebooks" / FIRST)[1] == "guess = None  # a number"


def test_a_changed_notebook_comes_beside_one_that_was_edited_and_once(clone, work):
    edit(work / "notebooks" / FIRST, guessed)
    edited = (work / "notebooks" / FIRST).read_bytes()
    write(clone / "notebooks" / FIRST, "guess = None  # a number")
    said = [*lab.update(work, clone), *lab.update(work, clone)]
    assert said == [
        "00_start.ipynb has changed: the new one is beside yours, as 00_start.new.ipynb."
    ]
    assert (work / "notebooks" / FIRST).read_bytes() == edited
    assert sources(work / "notebooks/00_start.new.ipynb")[1] == "guess = None  # a number"


def test_a_new_notebook_is_written_over_nothing_that_has_its_name(clone, work):
    edit(work / "notebooks" / FIRST, guessed)
    for number, name in enumerate(("00_start.new.ipynb", "00_start.new-2.ipynb"), 1):
        write(clone / "notebooks" / FIRST, f"guess = None  # {number}")
        assert name in next(lab.update(work, clone))
        edit(work / "notebooks" / name, guessed)
    assert {sources(path)[1] for path in (work / "notebooks").glob("*.ipynb")} == {"guess = 5"}


def test_a_notebook_that_no_longer_can_be_read_counts_as_edited(clone, work):
    (work / "notebooks" / FIRST).write_text("{")
    write(clone / "notebooks" / FIRST, "guess = None  # a number")
    assert "beside yours" in next(lab.update(work, clone))
    assert (work / "notebooks" / FIRST).read_text() == "{"


def test_a_broken_notebook_of_the_clone_is_named_with_the_command_that_mends_it(clone, work):
    (clone / "notebooks" / FIRST).write_text("<<<<<<<")
    with pytest.raises(cl.CachelabError, match=f"{FIRST} is no longer a notebook: git checkout"):
        list(lab.update(work, clone))


def test_a_folder_without_a_record_loses_nothing(clone, work):
    (work / lab._RECORD).unlink()
    edit(work / "notebooks" / FIRST, guessed)
    assert [said for said in lab.update(work, clone) if "beside yours" in said]
    assert sources(work / "notebooks" / FIRST)[1] == "guess = 5"


def test_a_deleted_notebook_comes_back(clone, work):
    (work / "notebooks" / FIRST).unlink()
    assert list(lab.update(work, clone)) == ["00_start.ipynb is new."]
    assert (work / "notebooks" / FIRST).exists()


def test_a_panel_of_an_earlier_kernel_becomes_the_picture_that_was_saved_with_it(clone, work):
    shown = new_output("display_data", data={WIDGET: {"model_id": "gone"}, "image/png": "AAAA"})
    edit(work / "notebooks" / FIRST, lambda nb: nb.cells[1].outputs.append(shown))
    assert list(lab.update(work, clone)) == []
    (left,) = nbformat.read(work / "notebooks" / FIRST, 4).cells[1].outputs
    assert dict(left.data) == {"image/png": "AAAA"}


@pytest.mark.parametrize("written", ["{", "[]", '{"cells": [1]}', '{"cells": [{"outputs": [1]}]}'])
def test_a_file_that_is_no_notebook_any_more_is_left_as_it_is(clone, work, written):
    (work / "notebooks" / FIRST).write_text(written)
    list(lab.update(work, clone))
    assert (work / "notebooks" / FIRST).read_text() == written


# The notebooks of this clone


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "work"
    list(lab.update(folder))
    return folder


def links(path: Path) -> set[str]:
    """Return where the links and pictures of a notebook, or of the index, lead within the clone."""
    prose = [path.read_text()] if path.suffix == ".md" else [
        cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"
    ]  # fmt: skip
    found = re.findall(r"\]\(([^)#\s]+)|(?:src|href)=\"([^\"#]+)", "\n".join(prose))
    return {a or b for a, b in found if not re.match(r"\w+:", a or b)}


def test_every_link_of_a_copy_leads_to_a_file_inside_it(whole):
    files = [whole / "README.md", *notebooks.found(whole / "notebooks")]
    for path in files:
        targets = [(path.parent / link).resolve() for link in links(path)]
        assert all(one.is_file() and one.is_relative_to(whole) for one in targets), targets
    assert "../README.md" in links(files[1]) and len(links(files[0])) == len(files) - 1


def test_every_file_that_a_cell_reads_by_name_is_in_the_copy(whole):
    code = "\n".join(
        cell.source
        for path in notebooks.found()
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "code"
    )
    read = re.findall(r"[\"'](\.\.?/[\w./]+\.\w+)[\"']", code)
    assert read and [name for name in read if not (whole / "notebooks" / name).exists()] == []


# The command


class Started:
    """`python -m cachelab lab` on a folder of its own, until JupyterLab says where it is."""

    def __init__(
        self,
        own: Path,
        *args: str,
        command=("cachelab", "lab"),
        settings: str = "",
        under=(),
        **more: str,
    ):
        config = own / "config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "jupyter_server_config.py").write_text(settings)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "CACHELAB"))}
        env |= {"HOME": str(own), "JUPYTER_CONFIG_DIR": str(config)}
        env |= {"JUPYTER_RUNTIME_DIR": str(own / "runtime")}
        env |= more
        command = [*under, sys.executable, "-m", *command, "--no-browser", "--port=0", *args]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, env=env, cwd=own, **pipes)
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if "/lab?token=" in line:
                break  # else it has ended

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)

    def served(self) -> str:
        return re.search("from local directory: (.*)", self.said)[1]


def test_the_command_serves_the_copy_whatever_the_users_settings_say(tmp_path):
    elsewhere = f"c.ServerApp.root_dir = c.FileContentsManager.preferred_dir = {str(tmp_path)!r}"
    with Started(tmp_path, "--folder", "mine", settings=elsewhere) as started:
        assert started.served() == str(tmp_path / "mine")
        assert "The notebooks are in mine" in started.said
    with Started(tmp_path, "--allow-root", command=["jupyterlab"], settings=elsewhere) as control:
        assert control.served() == str(tmp_path)


def test_a_copy_is_left_alone_while_jupyterlab_is_at_work_in_it(tmp_path):
    with Started(tmp_path, "--folder", "mine") as first:
        (tmp_path / "mine/notebooks/00_start_here.ipynb").write_text("{")
        record = tmp_path / "mine" / lab._RECORD
        record.write_text("{}")
        with Started(tmp_path, "--folder", "mine") as second:
            assert f"process {first.process.pid}" in second.said and record.read_text() == "{}"
        with Started(tmp_path, "--folder", "mine", "--fresh") as third:
            assert third.process.wait(30) == 2
            assert f"end process {first.process.pid} first" in third.said


def test_fresh_sets_the_old_copy_aside_and_starts_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = Path("mine/notebooks/00_start_here.ipynb")
    for number in (None, 1, 2):
        said = list(lab._prepare(tmp_path / "mine", fresh=True))
        old = f"mine-{date.today()}-{number}"
        assert (f"The old copy is now {old}." in said) == (number is not None)
        if number:
            assert sources(Path(old) / mine.relative_to("mine"))[-1] == "mine"
        edit(mine, lambda nb: nb.cells.append(new_markdown_cell("mine")))


def test_fresh_moves_no_folder_that_is_not_a_copy(tmp_path):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(cl.CachelabError, match="thesis is no copy of the notebooks"):
        list(lab._prepare(tmp_path / "thesis", fresh=True))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_place_that_cannot_be_written_to_is_told_in_one_line_with_the_way_out(capsys):
    assert main(["lab", "--folder", f"{os.devnull}/work"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert "cannot hold the notebooks" in err and "--folder ~/cachelab" in err


def test_a_clone_that_nobody_may_write_to_opens_in_a_folder_of_ones_own(tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "cachelab", clone / "cachelab")
    (clone / "notebooks").mkdir()
    write(clone / "notebooks" / FIRST, "guess = None")
    # Mode bits bind root too, without the capability to pass them.
    plain = ["setpriv", "--bounding-set=-dac_override"] * (os.geteuid() == 0)
    here = {"under": plain, "PYTHONPATH": str(clone)}
    for path in (clone, *clone.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        with Started(tmp_path, **here) as refused:
            assert refused.process.wait(30) == 2
            assert "clone/work cannot hold the notebooks (Permission denied)" in refused.said
            assert "--folder ~/cachelab" in refused.said and "Traceback" not in refused.said
        with Started(tmp_path, "--folder", "mine", **here) as started:
            assert started.served() == str(tmp_path / "mine")
    finally:
        for path in (clone, *clone.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)


def test_a_package_without_notebooks_says_where_they_are(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(notebooks, "found", lambda *_: [])
    assert main(["lab", "--folder", str(tmp_path / "work")]) == 2
    assert "run this in a clone of the project" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_commands_refuse_what_they_do_not_know(capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "--no-browser"])
    assert "unrecognized arguments: --no-browser" in capsys.readouterr().err


def test_git_ignores_copies_and_old_ones():
    for name in ("work/notebooks/00_start_here.ipynb", "work-2026-01-31-1/README.md"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0
    assert subprocess.run(["git", "check-ignore", "-q", "notebooks"], cwd=ROOT).returncode == 1
