"""The command line, as a terminal, a pipe and another process see it."""

import io
import os
import re
import signal
import socket
import subprocess
import sys

import pandas as pd
import pexpect
import pytest

import cachelab as cl
from cachelab.__main__ import main
from cachelab.prompt import ASK

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*forkpty:DeprecationWarning"
)  # pexpect's child becomes another program
COMMAND = [sys.executable, "-m", "cachelab"]
FAST = ["--users", "20", "--warm", "10", "--latency", "0.2"]
both = pytest.mark.parametrize("kind", [[], ["--async"]], ids=["sync", "async"])


@pytest.fixture
def env(server, client) -> dict[str, str]:
    """An environment in which the module's server is the one in use."""
    others = ("REDIS_", "CACHELAB_", "COLUMNS", "LINES")
    return {k: v for k, v in os.environ.items() if not k.startswith(others)} | {"REDIS_URL": server.url}


@pytest.fixture
def terminal(env):
    """A function that runs a command in a terminal of 80 columns."""
    opened = []

    def run(*args: str, **more: str) -> pexpect.spawn:
        size = {"dimensions": (40, 80), "timeout": 9, "encoding": "utf-8"}
        opened.append(pexpect.spawn(COMMAND[0], [*COMMAND[1:], *args], env=env | more, **size))
        return opened[-1]

    yield run
    for child in opened:
        child.close(force=True)


@pytest.fixture
def piped(env):
    """A function that starts a command with pipes instead of a terminal."""
    opened = []

    def run(*args: str, **more: str) -> subprocess.Popen:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        opened.append(subprocess.Popen([*COMMAND, *args], env=env | more, text=True, **pipes))
        return opened[-1]

    yield run
    for child in opened:
        child.kill()
        child.communicate()


def dead_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"redis://:sekret@127.0.0.1:{taken.getsockname()[1]}/0"


def leave(child: pexpect.spawn, hits: int, misses: int) -> None:
    """Expect a clean end: the summary, exit status 0, no traceback."""
    child.expect(rf"\r\nHits {hits}, misses {misses}[^\r]*\.\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert (child.before, child.exitstatus) == ("", 0)


@both
def test_the_prompt_tells_hits_from_misses_until_the_end_of_input(terminal, client, kind):
    child, told, ms = (
        terminal("ask", *FAST, *kind),
        r"(\S+|no such user) +(hit|miss) +([\d.]+) ms +kept for \S+ s more",
        {},
    )
    child.expect("Warming the cache: 100%")
    for id, outcome in [
        ("user-1", "hit"),
        ("user-11", "miss"),
        ("user-11", "hit"),
        ("nobody", "miss"),
        ("nobody", "hit"),
    ]:
        child.expect_exact("user id> ")
        child.sendline(id)
        child.expect(told)
        assert (child.match[2], child.match[1] == "no such user") == (outcome, id == "nobody")
        ms[id, outcome] = float(child.match[3])
    child.expect_exact("user id> ")
    assert ms["user-11", "miss"] >= 200 > ms["user-11", "hit"]
    assert client.keys(f"{ASK}*")
    child.sendeof()
    leave(child, 3, 2)
    assert not client.keys(f"{ASK}*")


@both
def test_ctrl_c_does_not_wait_for_the_database(terminal, client, kind):
    child = terminal("ask", "--warm", "0", "--latency", "60", *kind)
    child.expect_exact("user id> ")
    child.sendline("user-1")
    child.expect_exact("user-1\r\n")
    while not client.keys(f"{ASK}*"):  # until the load has begun
        pass
    child.sendintr()
    leave(child, 0, 0)
    assert not client.keys(f"{ASK}*")


@both
def test_piped_ids_are_answered_without_a_prompt_and_a_bad_one_does_not_end_it(piped, kind):
    out, errors = piped("ask", *FAST, *kind).communicate("user-1\n\n" + "x" * 513 + "\nuser-2\n", timeout=9)
    assert "user id>" not in out and errors == ""
    assert re.findall(r" hit  |512 bytes| miss  ", out) == [" hit  ", "512 bytes", " hit  "]
    assert out.endswith("Hits 2, misses 0, hit rate 100 %.\n")


@pytest.mark.parametrize(
    ("kind", "number"), [([], signal.SIGINT), (["--async"], signal.SIGINT), (["--async"], signal.SIGTERM)]
)
def test_a_signal_ends_the_prompt_cleanly_while_a_pipe_is_silent(piped, kind, number):
    child = piped("ask", *FAST, *kind)
    while "Ctrl-D ends" not in child.stdout.readline():
        pass
    child.stdin.write("user-1\n")
    child.stdin.flush()
    assert child.stdout.readline() == "\n" and " hit " in child.stdout.readline()
    child.send_signal(number)
    assert child.wait(9) == 0
    assert (child.stdout.read(), child.stderr.read()) == ("Hits 1, misses 0, hit rate 100 %.\n", "")


@both
def test_the_prompt_goes_on_when_redis_dies_and_ctrl_c_leaves_it(terminal, kind):
    with cl.Server() as own:
        child = terminal("ask", *FAST, *kind, REDIS_URL=own.url)
        child.expect_exact("user id> ")
        own.kill()
        child.sendline("user-1")
        child.expect(r"thSEeXJK +miss .* ms +Redis does not answer")
        child.expect_exact("user id> ")
        child.sendintr()
        leave(child, 0, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_keeps_a_server_for_other_processes_and_leaves_none_behind(piped, number):
    child = piped("serve", "--maxmemory", "4mb", "--policy", "allkeys-lru")
    url = child.stdout.readline().removeprefix("export REDIS_URL=").strip()
    client = cl.connect(url)
    pid, memory = client.info()["process_id"], client.info("memory")
    client.connection_pool.disconnect()
    assert (memory["maxmemory"], memory["maxmemory_policy"]) == (4 * 2**20, "allkeys-lru")
    child.send_signal(number)
    assert child.wait(9) == 0 and child.stderr.read() == ""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_serve_says_when_its_server_was_ended_by_somebody_else(piped):
    child = piped("serve")
    client = cl.connect(child.stdout.readline().removeprefix("export REDIS_URL=").strip())
    client.shutdown(nosave=True)
    client.connection_pool.disconnect()
    assert child.wait(9) == 2
    assert "dead" in child.stderr.read()


def test_seed_shows_a_bar_and_reports_rate_and_round_trips(terminal, client):
    child = terminal("seed", "--count", "1000", "--batch-size", "50", "--ttl", "90", "--seed", "0")
    child.expect(r"1000/1000 .*1,000 users in \S+ s: \S+ a second, 20 round trips \(pipeline\)")
    child.expect_exact("Keys cachelab:seed:user-1 to user-1000 expire after 90 s.")
    child.expect(pexpect.EOF)
    assert client.dbsize() == 1000 and client.get("cachelab:seed:user-1") == "thSEeXJK"
    assert 0 < client.ttl("cachelab:seed:user-1000") <= 90


def test_seed_tells_what_was_written_when_it_is_interrupted(terminal, client):
    child = terminal("seed", "--method", "one_by_one", "--count", "10000000")
    child.expect("users/s")
    child.sendintr()
    child.expect(r"\n\d+ of 10000000 users were written; seeding again completes them.\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_charts_runs_the_notebooks_that_are_named_and_fails_with_them(monkeypatch, tmp_path):
    from cachelab.lab import notebooks

    ran, paths = [], [tmp_path / f"{name}.ipynb" for name in ("00_start", "01_why", "05_trips")]
    monkeypatch.setattr(notebooks, "found", lambda: paths)
    monkeypatch.setattr(
        notebooks, "run_all", lambda *args, **more: ran.append((*args, more)) or ["failure"][len(ran) > 1 :]
    )
    assert main(["charts", "--only", "01", "05", "--scale", "full"]) == 1
    assert main(["charts", "--write"]) == 0
    assert ran == [(paths[1:], "full", {"write_outputs": False}), (paths, "quick", {"write_outputs": True})]


def test_redraw_tells_what_was_drawn_and_which_files_changed(tmp_path, monkeypatch, capsys):
    from cachelab.lab import charts

    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    for name in ("01_one", "01_two"):
        charts.bars(pd.DataFrame({"name": ["a"], "loads": [1]}), "name", "loads", title="Found", name=name)
    assert main(["charts", "--redraw", str(tmp_path)]) == 0
    (tmp_path / "01_two.svg").write_text("another picture")
    assert main(["charts", "--redraw", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "Figures drawn again: 2. Files changed: 0.",
        "Figures drawn again: 2. Files changed: 1: 01_two.svg.",
    ]


def test_redraw_draws_the_committed_figures_unless_a_folder_is_named(monkeypatch, tmp_path):
    from cachelab.lab import charts, notebooks

    drawn = []
    monkeypatch.setattr(charts, "redraw", lambda folder: drawn.append(folder.resolve()) or [])
    assert main(["charts", "--redraw"]) == main(["charts", "--redraw", str(tmp_path)]) == 0
    assert drawn == [notebooks.SCALES["full"], tmp_path]


def test_compare_lays_a_folder_over_the_committed_figures_or_over_a_second_one(monkeypatch, capsys, tmp_path):
    from cachelab.lab import findings, notebooks, overlay

    asked = []
    monkeypatch.setitem(notebooks.SCALES, "quick", tmp_path)
    monkeypatch.setattr(overlay, "overlay", lambda *folders: asked.append([f.resolve() for f in folders]) or {"05": 1})
    monkeypatch.setattr(findings, "compare", lambda *folders: list(folders))
    monkeypatch.setattr(findings, "told", lambda folders: f"{folders[0].name} and {folders[1].name}")
    assert main(["charts", "--compare", "tests"]) == main(["charts", "--compare", "tests", "notebooks"]) == 0
    committed, root = notebooks.SCALES["full"], notebooks.ROOT
    assert [folders[:2] for folders in asked] == [[committed, root / "tests"], [root / "notebooks", root / "tests"]]
    assert {folders[2] for folders in asked} == {tmp_path / "compare"}
    assert "charts and tests" in capsys.readouterr().out


def test_compare_leaves_no_pictures_of_other_folders(monkeypatch, tmp_path):
    from cachelab.lab import notebooks

    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        for file in notebooks.SCALES["full"].glob("03_falsy.*"):
            (tmp_path / run / file.name).write_bytes(file.read_bytes())
    monkeypatch.setitem(notebooks.SCALES, "quick", tmp_path)
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "09_old.svg").touch()
    assert main(["charts", "--compare", str(tmp_path / "second"), str(tmp_path / "first")]) == 0
    assert sorted(os.listdir(tmp_path / "compare")) == ["03_falsy.png", "03_falsy.svg"]


BAD = {
    "ask --users -1": "count must be at least 0, not -1",
    "ask --warm -1": "warm must be at least 0, not -1",
    "ask --ttl 0": "ttl must be greater than 0, not 0",
    "ask --latency nan": "latency must lie between 0 and inf, not nan",
    "seed --count -5": "count must be at least 0, not -5",
    "seed --method magic": "method must be one of",
    "serve --policy magic": "argument(s) must be one of",
    "charts --only 99": "only must be one of",
    "charts --redraw nowhere": "nowhere is no folder",
    "charts --redraw --only 05": "leave out --only and --write",
    "charts --compare nowhere": "nowhere is no folder",
    "charts --compare charts": "charts is the folder of both machines",
    "charts --compare one two three": "one folder over another, not 3",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_argument_is_told_in_one_line(line, capsys, env, monkeypatch):
    monkeypatch.setenv("REDIS_URL", env["REDIS_URL"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(line.split()) == 2
    out, errors = capsys.readouterr()
    assert errors.startswith(f"python -m cachelab {line.split()[0]}: ") and errors.count("\n") == 1
    assert BAD[line] in errors and out == ""


@pytest.mark.parametrize("command", ["ask", "seed"])
def test_a_server_that_is_away_is_told_with_the_way_out_and_without_its_password(command, piped):
    child = piped(command, REDIS_URL=dead_url())
    out, errors = child.communicate(timeout=9)
    assert child.returncode == 2 and out == "" and errors.count("\n") == 1
    assert "unset REDIS_URL" in errors and "sekret" not in errors


@pytest.mark.parametrize("command", ["doctor", "serve", "ask", "seed", "charts"])
def test_help_teaches_with_examples_and_the_environment_on_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="^0$"):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert f"  python -m cachelab {command}" in told and "REDIS_URL" in told
    assert max(map(len, told.splitlines())) <= 80


def test_without_a_command_the_help_names_them_all(capsys):
    assert main([]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^    (\w+) ", told, re.M) == ["doctor", "serve", "ask", "seed", "charts"]
