"""The headless runner on small notebooks made here, then every notebook of the series: it runs, and it is built alike."""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cachelab.lab import notebooks
from cachelab.lab.notebooks import NotebookError, card, clean, execute, run_all, tags

pytestmark = pytest.mark.xdist_group("notebooks")  # timings must not run beside each other
NOTEBOOKS = notebooks.found()
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
some = pytest.mark.skipif(not NOTEBOOKS, reason="no notebooks yet")
RAISES = {"tags": ["raises-exception"]}


def write(folder: Path, *cells, name: str = "00_small.ipynb", **about) -> Path:
    cells = [cell if isinstance(cell, dict) else new_code_cell(cell) for cell in cells]
    nbformat.write(new_notebook(cells=cells, metadata={"cachelab": about} if about else {}), folder / name)
    return folder / name


def text(outputs) -> str:
    """Everything in outputs that is read as text, pictures left out."""
    parts = []
    for out in outputs:
        parts += [out.get("text", ""), *out.get("traceback", [])]
        parts += [data for kind, data in out.get("data", {}).items() if kind.startswith("text/")]
    return re.sub(r"data:[\w/+;-]+base64,[\w/+=]+", "", "\n".join(parts))


def code_cells(nb) -> list:
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(nb) -> str:
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown").replace("’", "'")


def code_lines(source: str) -> int:
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in source.splitlines())


HERE = "|".join(re.escape(str(folder)) for folder in (Path.home(), notebooks.ROOT) if folder != folder.parent)
LEAKS = re.compile(
    r"/root\b|/home/|/Users/|site-packages|/tmp/|/var/folders/|(127\.0\.0\.1|localhost|\[::1\]):\d|\bat 0x[\da-f]"
    rf"|({HERE})\b"
)


# The runner


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    path = write(
        folder,
        new_markdown_cell("# 00 Small — does it run?"),
        "import os\nprint(os.environ['CACHELAB_SCALE'], os.environ['CACHELAB_CHARTS'], os.getcwd(), sep='\\n')",
        "import asyncio\nawait asyncio.sleep(0, 'awaited')",
        new_code_cell("import json\njson.loads('{')", metadata=RAISES),
        new_code_cell("async with asyncio.TaskGroup() as group:\n    group.create_task(nobody())", metadata=RAISES),
        "import sys, warnings\nwarnings.warn('careful')\nprint('one', flush=True)\nprint(object())\nsys.executable",
        "import ipywidgets\nipywidgets.IntSlider()",
    )
    before = path.read_bytes()
    nb = execute(path, scale="full", charts=folder / "charts" / "new")
    return folder, nb, path.read_bytes() == before


def test_a_run_leaves_the_file_untouched_and_returns_every_output_in_order(small):
    _, nb, untouched = small
    assert untouched
    assert [cell.execution_count for cell in code_cells(nb)] == [1, 2, 3, 4, 5, 6]
    assert all(cell.outputs for cell in code_cells(nb))


def test_the_kernel_knows_scale_and_charts_and_works_in_the_notebooks_folder(small):
    folder, nb, _ = small
    assert text(nb.cells[1].outputs).split() == ["full", str(folder / "charts" / "new"), str(folder)]
    assert (folder / "charts" / "new").is_dir()


def test_top_level_await_works(small):
    assert "awaited" in text(small[1].cells[2].outputs)


def test_an_expected_error_shows_its_last_line_and_no_path(small):
    (error,) = clean(small[1]).cells[3].outputs
    assert error.ename == "JSONDecodeError" and len(error.traceback) == 1
    assert "Expecting property name" in error.traceback[0] and not LEAKS.search(error.traceback[0])


def test_a_task_groups_error_shows_no_path_once_cleaned(small):
    assert LEAKS.search(text(small[1].cells[4].outputs))
    assert not LEAKS.search(text(clean(small[1]).cells[4].outputs))


def test_the_kernel_is_this_interpreter(small):
    assert repr(sys.executable) in text(small[1].cells[5].outputs)


def test_cleaning_drops_what_means_nothing_and_keeps_the_rest(small):
    raw, cleaned = small[1].cells[5].outputs, clean(small[1]).cells[5].outputs
    assert "ipykernel_" in text(raw) and re.search("at 0x[0-9a-f]", text(raw))
    assert "<cell>:2: UserWarning: careful" in text(cleaned) and "one\n<object object at 0x…>" in text(cleaned)
    assert clean(small[1]).cells[6].outputs == [] != small[1].cells[6].outputs
    assert set(clean(small[1]).metadata) == {"kernelspec", "language_info", "cachelab"}


def test_cleaning_a_clean_notebook_changes_nothing(small):
    assert clean(clean(small[1])) == clean(small[1])


def test_cleaning_keeps_what_a_progress_bar_ends_with_and_joins_a_stream():
    pieces = [
        nbformat.v4.new_output("stream", name="stderr", text=part) for part in ("\r 0%", "\r50%", "\r100%\n", "end")
    ]
    (joined,) = clean(new_notebook(cells=[new_code_cell("", outputs=pieces)])).cells[0].outputs
    assert joined.text == "100%\nend"


def test_a_failing_cell_raises_an_error_that_names_notebook_cell_source_and_traceback(tmp_path):
    path = write(tmp_path, "def half(x):\n    return 1 / x", "half(0)", "never = 1")
    with pytest.raises(NotebookError) as caught:
        execute(path)
    for part in ("00_small.ipynb, cell 2", "half(0)", "return 1 / x", "ZeroDivisionError: division by zero"):
        assert part in str(caught.value)


def test_a_cell_that_never_ends_meets_its_time_out(tmp_path):
    with pytest.raises(NotebookError, match="(?s)cell 1.*timed out.*import threading"):
        execute(write(tmp_path, "import threading\nthreading.Event().wait()"), timeout=1)


def test_a_kernel_that_dies_raises_an_error_that_names_the_cell(tmp_path):
    with pytest.raises(NotebookError, match="(?s)cell 2.*os._exit.*died"):
        execute(write(tmp_path, "import os", "os._exit(3)"))


def test_a_kernel_that_does_not_start_says_why(tmp_path):
    with pytest.raises(NotebookError, match="(?s)00_small.*died.*encodings"):
        execute(write(tmp_path, "1"), extra={"PYTHONHOME": str(tmp_path)})


def test_an_unknown_scale_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="scale must be one of 'quick', 'full', not 'huge'"):
        execute(tmp_path / "none.ipynb", scale="huge")


def longest_cell(monkeypatch, path, timeout, enough):
    """Run a notebook until a cell takes ``enough`` seconds; return the longest."""
    run, longest = notebooks._run_cell, 0.0

    def timed(*args):
        nonlocal longest
        start = time.perf_counter()
        run(*args)
        longest = max(longest, time.perf_counter() - start)
        if longest >= enough:
            raise RuntimeError("seen enough")

    monkeypatch.setattr(notebooks, "_run_cell", timed)
    try:
        execute(path, timeout=timeout)
    except NotebookError as error:
        assert "seen enough" in str(error)
    return longest


def outputs_of_widgets(folder, count):
    cell = "box = widgets.Output()\ndisplay(box)\nwith box:\n    print('inside')"
    return write(folder, "import ipywidgets as widgets", *[cell] * count)


def test_output_widgets_do_not_stall(tmp_path, monkeypatch):
    assert longest_cell(monkeypatch, outputs_of_widgets(tmp_path, 60), timeout=20, enough=20) < 20


def test_output_widgets_stall_without_the_cure(tmp_path, monkeypatch):
    monkeypatch.delattr(notebooks._PromptOutput, "_publish_msg")  # now and then a cell waits for its whole time-out
    assert longest_cell(monkeypatch, outputs_of_widgets(tmp_path, 2000), timeout=2, enough=2) >= 2


def test_the_users_settings_neither_count_nor_change(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (startup := home / ".ipython" / "profile_default" / "startup").mkdir(parents=True)
    (startup / "00.py").write_text("startup = True")
    (home / "rc.py").write_text("rc = True")
    for name, value in {
        "HOME": home,
        "PYTHONSTARTUP": home / "rc.py",
        "MPLBACKEND": "svg",
        "CACHELAB_CHARTS": home,
    }.items():
        monkeypatch.setenv(name, str(value))
    files = sorted(home.rglob("*"))
    path = write(tmp_path, "import os\n'startup' in globals(), 'rc' in globals(), os.environ.get('CACHELAB_CHARTS')")
    assert text(execute(path).cells[0].outputs).strip() == "(False, False, None)"
    assert sorted(home.rglob("*")) == files
    swayed = execute(path, extra={"IPYTHONDIR": str(home / ".ipython"), "PYTHONSTARTUP": str(home / "rc.py")})
    assert text(swayed.cells[0].outputs).strip() == "(True, True, None)"


def test_a_run_leaves_no_temporary_folder(tmp_path, monkeypatch):
    (own := tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    seen = text(execute(write(tmp_path, "import os\nos.listdir('t')")).cells[0].outputs)
    assert "cachelab-run-" in seen and not list(own.iterdir())


def test_solutions_are_tried_after_the_check_of_the_stub(tmp_path):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "00_one.py").write_text("def one():\n    return 1\n")
    stub = new_code_cell("def one():\n    ...", metadata={"tags": ["exercise"]})
    check = new_code_cell("one()", metadata={"tags": ["check"], "solution": "00_one.py"})
    nb = execute(write(tmp_path, stub, check), solve=True)
    assert [text(cell.outputs).strip() for cell in nb.cells] == ["", "", "", "1"]


def test_run_all_goes_on_after_a_failure_and_tells_it_and_the_charts(tmp_path, capsys):
    draw = "import os, pathlib\npathlib.Path(os.environ['CACHELAB_CHARTS'], 'a.svg').write_text('<svg/>')"
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "old.svg").write_text("<svg/>")
    bad, good = write(tmp_path, "1 / 0", name="00_bad.ipynb"), write(tmp_path, draw, name="01_good.ipynb")
    failures = run_all([bad, good], charts=tmp_path / "charts")
    told = capsys.readouterr().out
    assert len(failures) == 1 and "00_bad.ipynb, cell 1" in told and "1 of 2 notebooks ran" in told
    assert re.search(r"1/2  00 bad +\d+ s  failed   about \d+ s left\n 2/2  01 good +\d+ s\n", told)
    assert "Charts drawn: 1, " in told


def test_outputs_are_written_cleaned_with_their_scale_and_only_when_all_went_well(tmp_path):
    good = write(tmp_path, "1 + 1", name="00_good.ipynb", question="how?", minutes=2)
    bad = write(tmp_path, "1 + 1", "1 / 0", name="01_bad.ipynb")
    before = bad.read_bytes()
    run_all([good, bad], charts=tmp_path / "charts", write_outputs=True, progress=lambda *args, **kwargs: None)
    nb = nbformat.read(good, as_version=4)
    assert text(nb.cells[0].outputs).strip() == "2" and nb == clean(nb) and bad.read_bytes() == before
    assert nb.metadata.cachelab.outputs == {"scale": "quick", "code": notebooks.code_digest(nb)}


def test_a_notebook_edited_while_it_ran_keeps_the_edit(tmp_path):
    path = write(tmp_path, "open('00_small.ipynb', 'a').write('\\n')")
    (failure,) = run_all([path], charts=tmp_path, write_outputs=True, progress=lambda *args, **kwargs: None)
    assert "was changed while it ran" in str(failure) and path.read_text().endswith("\n\n")


def test_two_command_lines_at_once_do_not_disturb_each_other(tmp_path):
    path = write(tmp_path, "import time\ntime.sleep(1)")
    command = [sys.executable, "-m", "cachelab.lab.notebooks", "run", str(path), "--charts", str(tmp_path / "charts")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0] and all("1 of 1 notebooks ran" in each for each in told)


def test_the_command_line_fails_when_a_notebook_does(tmp_path):
    path = write(tmp_path, "1 / 0")
    assert notebooks.main(["run", str(path), "--charts", str(tmp_path)]) == 1


@some
def test_a_notebook_is_named_by_number_or_file_and_anything_else_is_refused(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(notebooks, "run_all", lambda paths, *rest: asked.extend(paths))
    assert notebooks.main(["run", "00", str(NOTEBOOKS[-1])]) == 0 and asked == [NOTEBOOKS[0], NOTEBOOKS[-1]]
    with pytest.raises(SystemExit, match="2"):
        notebooks.main(["run", "99"])
    assert "'99' is no notebook: name a file, or one of the numbers 00, 01" in capsys.readouterr().err


def test_an_interrupt_ends_the_run_and_its_kernel(tmp_path):
    path = write(
        tmp_path, "import os, time\nos.write(os.open('pid', os.O_WRONLY), b'%d\\n' % os.getpid())\ntime.sleep(600)"
    )
    os.mkfifo(tmp_path / "pid")
    command = [sys.executable, "-m", "cachelab.lab.notebooks", "run", str(path), "--charts", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        with (tmp_path / "pid").open() as pipe:  # opens once the cell runs
            kernel = int(pipe.readline())
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate()
    assert run.returncode != 0 and "KeyboardInterrupt" in errors and "never retrieved" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)


# Navigation and table


@pytest.fixture
def series(tmp_path):
    (folder := tmp_path / "notebooks").mkdir()
    for number, name in enumerate(("Start here", "Why cache", "Redis")):
        heading = new_markdown_cell(f"# {number:02} {name} — what {number}?")
        write(
            folder,
            heading,
            "1",
            name=f"{number:02}_{name.split()[0].lower()}.ipynb",
            question=f"what {number}?",
            minutes=10,
        )
    return folder


def test_navigation_is_written_from_the_files_found_and_only_once(series):
    assert len(notebooks.navigation(series, write=False)) == 3 == len(notebooks.navigation(series))
    middle = nbformat.read(series / "01_why.ipynb", as_version=4)
    assert middle.cells[0].source == middle.cells[-1].source
    line = "← [00 Start here](00_start.ipynb) · [index](../README.md) · [02 Redis](02_redis.ipynb) →"
    assert middle.cells[0].source == line and tags(middle.cells[-1]) == ["nav"]
    assert notebooks.navigation(series) == []


def test_the_first_and_the_last_notebook_have_one_neighbour(series):
    notebooks.navigation(series)
    ends = [nbformat.read(path, as_version=4).cells[0].source for path in notebooks.found(series)[::2]]
    assert ends == [
        "[index](../README.md) · [01 Why cache](01_why.ipynb) →",
        "← [01 Why cache](01_why.ipynb) · [index](../README.md)",
    ]


def test_a_notebook_that_goes_makes_its_neighbours_stale(series):
    notebooks.navigation(series)
    (series / "02_redis.ipynb").unlink()
    assert [path.name for path in notebooks.navigation(series)] == ["01_why.ipynb"]


def test_the_table_names_number_question_and_minutes(series):
    assert notebooks.index_table(series).splitlines()[2:] == [
        "| [00 Start here](notebooks/00_start.ipynb) | what 0? | 10 |",
        "| [01 Why cache](notebooks/01_why.ipynb) | what 1? | 10 |",
        "| [02 Redis](notebooks/02_redis.ipynb) | what 2? | 10 |",
    ]


def test_the_table_is_written_between_its_markers_and_only_once(series):
    (readme := series.parent / "README.md").write_text("before\n<!-- notebooks -->\nold\n<!-- /notebooks -->\nafter\n")
    assert notebooks.update_table(readme, series, write=False) and "old" in readme.read_text()
    assert notebooks.update_table(readme, series) and not notebooks.update_table(readme, series)
    assert (
        readme.read_text()
        == f"before\n<!-- notebooks -->\n{notebooks.index_table(series)}\n<!-- /notebooks -->\nafter\n"
    )


def test_a_readme_without_markers_is_refused(series):
    (readme := series.parent / "README.md").write_text("nothing")
    with pytest.raises(NotebookError, match="README.md needs the lines <!-- notebooks -->"):
        notebooks.update_table(readme, series)


# Every notebook runs


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def ran(request, tmp_path_factory):
    """A notebook run once at quick scale, its solutions tried, and the folder of its charts."""
    charts = tmp_path_factory.mktemp("charts")
    try:
        return execute(request.param, charts=charts, solve=True), charts
    except NotebookError as error:
        if "AssertionError" not in str(error):
            raise
        # a busy moment of a shared machine may upset a measurement once; a wrong claim fails again
        return execute(request.param, charts=charts, solve=True), charts


def test_it_runs_without_errors_and_without_warnings(ran):
    for cell in code_cells(ran[0]):
        if "raises-exception" not in tags(cell):
            assert all(out.output_type != "error" for out in cell.outputs), cell.source
            assert not re.search(r"\w+Warning:|Traceback", text(cell.outputs)), text(cell.outputs)


def test_what_is_broken_on_purpose_breaks(ran):
    for cell in code_cells(ran[0]):
        if "raises-exception" in tags(cell):
            assert any(out.output_type == "error" for out in cell.outputs) or "Traceback" in text(cell.outputs), (
                cell.source
            )


def test_a_stub_is_not_yet_right_and_its_solution_is(ran):
    for cell in code_cells(ran[0]):
        if "check" in tags(cell):
            assert "not yet" in text(cell.outputs), f"the stub passes: {cell.source}"
        if "check-solved" in tags(cell):
            assert "held" in text(cell.outputs) and "not yet" not in text(cell.outputs), text(cell.outputs)


def test_it_shows_a_picture_and_every_picture_has_words(ran):
    pictures = [out for cell in code_cells(ran[0]) for out in cell.outputs if "image/png" in out.get("data", {})]
    assert pictures
    assert all(len(out.metadata.get("image/png", {}).get("alt", "")) > 20 for out in pictures)


def test_its_charts_are_kept_as_svg_png_and_data(ran):
    names = {path.stem for path in ran[1].glob("*.svg")}
    assert (
        names == {path.stem for path in ran[1].glob("*.png")} == {path.stem for path in ran[1].glob("*.json")} != set()
    )


def test_its_outputs_tell_nothing_of_this_machines_folders_and_ports(ran):
    for cell in code_cells(clean(ran[0])):
        assert not (leak := LEAKS.search(text(cell.outputs))), f"{leak} from {cell.source}"


@pytest.mark.parametrize("leak", ["/home/ann/x.py", "/tmp/x", "redis://:pw@127.0.0.1:6379", "lib/site-packages/redis"])
def test_a_leak_would_be_seen(leak):
    assert LEAKS.search(leak) and not LEAKS.search("a hit costs 0.1 ms, a miss 2 s: 1/20")


# Every notebook is built alike


@each
def test_it_opens_with_number_title_question_and_what_to_expect(path):
    nb = nbformat.read(path, as_version=4)
    opening = nb.cells[1].source.replace("’", "'")
    heading = re.fullmatch(r"# (\d\d) [^—]+ — (.+\?)", opening.splitlines()[0])
    assert heading and heading[1] == path.name[:2] and heading[2] == card(path)["question"]
    for item in ("What you'll do", "learn", "need", f"{nb.metadata.cachelab.minutes} minutes"):
        assert item in opening, item


@each
def test_it_closes_with_what_we_saw_in_practice_and_next(path):
    closing = prose(nbformat.read(path, as_version=4))[-4000:].lower()
    assert all(item in closing for item in ("what we saw", "in practice", "next"))


@some
def test_navigation_fits_the_files():
    assert notebooks.navigation(write=False) == [], "python -m cachelab.lab.notebooks nav"


@some
def test_the_readmes_table_fits_the_files():
    assert not notebooks.update_table(write=False), "python -m cachelab.lab.notebooks table"


@each
def test_stored_outputs_are_all_there_or_none_of_one_clean_full_run_of_this_code(path):
    nb = nbformat.read(path, as_version=4)
    if not any(cell.outputs or cell.execution_count for cell in code_cells(nb)):
        return
    remedy = "python -m cachelab.lab.notebooks run --scale full --write"
    assert [cell.execution_count for cell in code_cells(nb)] == list(range(1, len(code_cells(nb)) + 1)), remedy
    assert nb.metadata.cachelab.get("outputs") == {"scale": "full", "code": notebooks.code_digest(nb)}, remedy
    assert nb == clean(nb), remedy
    for cell in code_cells(nb):
        assert "raises-exception" in tags(cell) or all(out.output_type != "error" for out in cell.outputs), cell.source
        assert not LEAKS.search(text(cell.outputs)), cell.source


@some
def test_outputs_are_stored_in_every_notebook_or_in_none():
    assert len({"outputs" in nbformat.read(path, as_version=4).metadata.cachelab for path in NOTEBOOKS}) == 1


@each
def test_its_code_does_nothing_that_a_reader_must_not_copy(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        found = re.search(
            r"(?i)flush_?(all|db)|sys\.path|\bpip\b|\bdocker\b|import \*|rcParams|asyncio\.run\(", cell.source
        )
        assert not found or "raises-exception" in tags(cell), found


@each
def test_its_setup_is_short(path):
    assert code_lines(code_cells(nbformat.read(path, as_version=4))[0].source) <= 6


@each
def test_its_cells_are_short_and_follow_prose(path):
    nb = nbformat.read(path, as_version=4)
    lines = sorted(code_lines(cell.source) for cell in code_cells(nb))
    assert statistics.median(lines) <= 4 and lines[int(0.9 * (len(lines) - 1))] <= 12, lines
    before = [
        first.cell_type for first, second in zip(nb.cells, nb.cells[1:], strict=False) if second.cell_type == "code"
    ]
    assert before.count("markdown") >= 0.8 * len(before)


@each
def test_its_links_lead_somewhere_and_its_pictures_have_alternative_text(path):
    words = prose(nbformat.read(path, as_version=4))
    assert not re.search(r"!\[\s*\]\(|<img (?![^>]*alt=\"[^\"])", words)
    for target in re.findall(r"\]\(([^)#\s]+)", words):
        assert "://" in target or (path.parent / target).exists(), target


@each
def test_its_exercises_are_stub_and_check_with_a_solution_file_each(path):
    cells = nbformat.read(path, as_version=4).cells
    checks = [cell for cell in cells if "check" in tags(cell)]
    assert len(checks) == sum("exercise" in tags(cell) for cell in cells)
    assert all(cell.metadata.get("solution", "").startswith(f"{path.name[:2]}_") for cell in checks)


@some
def test_the_solutions_on_disk_are_those_that_checks_name():
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells]
    named = [cell.metadata["solution"] for cell in cells if "check" in tags(cell)]
    assert sorted(named) == sorted(path.name for path in (notebooks.NOTEBOOKS / "solutions").glob("*.py"))
