"""The command line, as a terminal, a pipe and another process see it."""

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pexpect
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import cachelab as cl
from cachelab import _extras
from cachelab.__main__ import main
from cachelab.cli.prompt import ASK

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*forkpty:DeprecationWarning"
)  # pexpect's child becomes another program
PATIENCE = 60  # seconds: a bound for the busiest machine, a second or two on others
COMMAND = [sys.executable, "-m", "cachelab"]
FAST = ["--users", "20", "--warm", "10", "--latency", "0.2"]
both = pytest.mark.parametrize("kind", [[], ["--async"]], ids=["sync", "async"])


@pytest.fixture
def env(server, client) -> dict[str, str]:
    """An environment in which the module's server is the one in use."""
    others = ("REDIS_", "CACHELAB_", "COLUMNS", "LINES")
    return {k: v for k, v in os.environ.items() if not k.startswith(others)} | {
        "REDIS_URL": server.url
    }


@pytest.fixture
def terminal(env):
    """A function that runs a command in a terminal of 80 columns."""
    opened = []

    def run(*args: str, **more: str) -> pexpect.spawn:
        size = {"dimensions": (40, 80), "timeout": PATIENCE, "encoding": "utf-8"}
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
def test_arrow_keys_edit_an_id_and_the_terminal_is_left_as_it_was(terminal, tmp_path, kind):
    (tmp_path / "readline.py").write_text("raise ImportError")
    for hidden, outcome in (("", "hit"), (str(tmp_path), "miss")):  # control: a Python without it
        child = terminal("ask", *FAST, *kind, TERM="xterm", PYTHONPATH=hidden)
        child.expect_exact("user id> ")
        child.sendline("ser-1" + 5 * "\x1b[D" + "u")  # five steps to the left
        child.expect(rf" {outcome} +[\d.]+ ms")
        child.expect_exact("user id> ")
        child.sendintr()
        child.expect(pexpect.EOF)
        assert child.getecho()


@both
def test_piped_ids_are_answered_without_a_prompt_and_a_bad_one_does_not_end_it(piped, kind):
    out, errors = piped("ask", *FAST, *kind).communicate(
        "user-1\n\n" + "x" * 513 + "\nuser-2\n", timeout=9
    )
    assert "user id>" not in out and errors == ""
    assert re.findall(r" hit  |512 bytes| miss  ", out) == [" hit  ", "512 bytes", " hit  "]
    assert out.endswith("Hits 2, misses 0, hit rate 100 %.\n")


@pytest.mark.parametrize(
    ("kind", "number"),
    [([], signal.SIGINT), (["--async"], signal.SIGINT), (["--async"], signal.SIGTERM)],
)
def test_a_signal_ends_the_prompt_cleanly_while_a_pipe_is_silent(piped, kind, number):
    child = piped("ask", *FAST, *kind)
    assert any("Ctrl-D ends" in line for line in iter(child.stdout.readline, ""))
    child.stdin.write("user-1\n")
    child.stdin.flush()
    assert child.stdout.readline() == "\n" and " hit " in child.stdout.readline()
    child.send_signal(number)
    assert child.wait(PATIENCE) == 0
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
    assert child.wait(PATIENCE) == 0 and child.stderr.read() == ""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_serve_says_when_its_server_was_ended_by_somebody_else(piped):
    child = piped("serve")
    client = cl.connect(child.stdout.readline().removeprefix("export REDIS_URL=").strip())
    client.shutdown(nosave=True)
    client.connection_pool.disconnect()
    assert child.wait(PATIENCE) == 2
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
        notebooks,
        "run_all",
        lambda *args, ended, **more: ran.append((*args, more)) or ["failure"][len(ran) > 1 :],
    )
    assert main(["charts", "--only", "01", "05", "--scale", "full"]) == 1
    assert main(["charts", "--write"]) == 0
    assert ran == [
        (paths[1:], "full", {"write_outputs": False}),
        (paths, "quick", {"write_outputs": True}),
    ]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_charts_that_are_interrupted_tell_what_is_finished_and_the_command_for_the_rest(
    monkeypatch, tmp_path, capsys, at
):
    from cachelab.lab import notebooks

    begun = []

    def execute(path, *more):
        begun.append(path)
        if len(begun) > at:
            raise KeyboardInterrupt
        if at == 2 and len(begun) == 1:
            raise notebooks.NotebookError("a notebook that fails has ended too")
        return nbformat.read(path, 4)

    paths = [tmp_path / f"{name}.ipynb" for name in ("00_start", "02b_more", "05_trips")]
    for path in paths:
        nbformat.write(new_notebook(), path)
    monkeypatch.setattr(notebooks, "found", lambda: paths)
    monkeypatch.setattr(notebooks, "execute", execute)
    assert main(["charts", "--scale", "full"]) == 130
    told = capsys.readouterr().err
    done = ["No notebook has finished.", "Finished: 00.", "Finished: 00 02b."][at]
    left = " ".join(["00", "02b", "05"][at:])
    assert f"{done} The rest: python -m cachelab charts --scale full --only {left}\n" in told


def test_compare_names_the_figures_of_one_folder_and_counts_those_of_both(tmp_path, capsys):
    from cachelab.lab import findings, notebooks

    both, more = tmp_path / "both", tmp_path / "more"
    for folder, names in ((both, ["03_falsy"]), (more, ["03_falsy", "09_other"])):
        folder.mkdir()
        for file in notebooks.SCALES["full"].glob("03_falsy.*"):
            for name in names:
                text = file.read_bytes().replace(b"03_falsy", name.encode())
                (folder / f"{name}{file.suffix}").write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(notebooks.SCALES, "quick", tmp_path)
        assert main(["charts", "--compare", str(more), str(both)]) == 0
    told = capsys.readouterr().out
    assert "in 1 figures agree" in told and f"Not compared, only in {more}: 09_other" in told
    assert not findings.compare(both, more)["agrees"].all()  # control


def test_redraw_tells_what_was_drawn_and_which_files_changed(tmp_path, monkeypatch, capsys):
    from cachelab.lab import charts

    monkeypatch.setenv("CACHELAB_CHARTS", str(tmp_path))
    for name in ("01_one", "01_two"):
        charts.bars(
            pd.DataFrame({"name": ["a"], "loads": [1]}), "name", "loads", title="Found", name=name
        )
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


def test_compare_lays_a_folder_over_the_committed_figures_or_over_a_second_one(
    monkeypatch, capsys, tmp_path
):
    from cachelab.lab import findings, notebooks, overlay

    asked = []
    monkeypatch.setitem(notebooks.SCALES, "quick", tmp_path)
    monkeypatch.setattr(
        overlay,
        "overlay",
        lambda *folders: asked.append([f.resolve() for f in folders]) or {"05": 1},
    )

    def compare(*folders):
        df = pd.DataFrame({"chart": "05", "finding": [folder.name for folder in folders]})
        df.attrs["only_in"] = {}
        return df

    monkeypatch.setattr(findings, "compare", compare)
    monkeypatch.setattr(findings, "in_words", lambda df: " and ".join(df["finding"]))
    assert (
        main(["charts", "--compare", "tests"])
        == main(["charts", "--compare", "tests", "notebooks"])
        == 0
    )
    committed, root = notebooks.SCALES["full"], notebooks.ROOT
    assert [folders[:2] for folders in asked] == [
        [committed, root / "tests"],
        [root / "notebooks", root / "tests"],
    ]
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
    "ask --users -1": "users must be at least 0, not -1",
    "ask --warm -1": "warm must be at least 0, not -1",
    "ask --ttl 0": "ttl must be greater than 0, not 0",
    "ask --latency nan": "latency must be a finite number",
    "ask --latency 1e300": "latency must be at least 0 and at most 1000000, not 1e+300",
    "ask --ttl inf": "ttl must be a finite number",
    "seed --ttl 0": "ttl must be greater than 0, not 0",
    "seed --count 99999999999999999999": "count must be at most",
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
    out, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 2 and out == "" and errors.count("\n") == 1
    assert "unset REDIS_URL" in errors and "sekret" not in errors


@pytest.mark.parametrize(
    "command", ["lab", "doctor", "serve", "ask", "seed", "worker", "metrics", "charts"]
)
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
    commands = "lab doctor serve ask seed worker demo metrics charts teach".split()
    assert re.findall(r"^    (\w+) ", told, re.M) == commands


def test_help_does_not_lean_on_docstrings(env):
    told = [
        subprocess.run([*COMMAND[:1], *flags, "-m", "cachelab", "ask", "--help"], env=env, **READ)
        for flags in ([], ["-OO"])
    ]
    assert [done.returncode for done in told] == [0, 0] and told[0].stdout == told[1].stdout
    control = subprocess.run(
        [sys.executable, "-OO", "-c", "def f(): 'x'\nprint(f.__doc__)"], **READ
    )
    assert control.stdout == "None\n"


def test_the_version_is_that_of_the_package_and_of_python(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        main(["--version"])
    version = ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(rf"cachelab \d+\.\d+\S*, Python {version}\S*\n", capsys.readouterr().out)


READ = {"capture_output": True, "text": True, "timeout": PATIENCE}


def shell(line: str, env: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a line of bash that knows cachelab; where a part of a pipe fails, its status is told."""
    script = f"cachelab() {{ '{sys.executable}' -m cachelab \"$@\"; }}\n{line}"
    return subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], env=env, **READ)


@pytest.mark.parametrize(
    "line",
    [
        "cachelab doctor | head -1",
        "cachelab seed | true",
        "cachelab --help | true",
        "cachelab ask --help | true",
        "cachelab ask </dev/null | true",
        "cachelab doctor 2>&1 | true",
        "cachelab seed --count -1 2>&1 | true",
    ],
)
def test_who_reads_along_may_leave(line, env):
    done = shell(line, env)
    assert done.stderr == "" and done.returncode in (141, 0)  # 0: all was said before it left


def test_who_reads_along_with_the_notebooks_runner_may_leave(env):
    run = f"'{sys.executable}' -m cachelab.lab.notebooks"
    for line in (f"{run} --help | true", f"{run} nav --check | true", f"{run} table --check >&-"):
        done = shell(line, env)
        assert done.stderr == "" and done.returncode in (141, 0)


def test_a_program_that_does_not_expect_it_complains_when_its_reader_leaves(env):
    done = shell(f"'{sys.executable}' -c 'while True: print(1)' | true", env)
    assert "BrokenPipeError" in done.stderr  # control


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("cachelab doctor >&-", 0),
        ("cachelab doctor 2>&-", 0),
        ("cachelab doctor <&-", 0),
        ("cachelab doctor <&- >&- 2>&-", 0),
        ("cachelab seed >&-", 0),
        ("cachelab ask --users 3 --latency 0 <&-", 0),
        ("cachelab ask --users 3 --latency 0 --async <&-", 0),
        ("cachelab ask --users 3 --latency 0 >&- </dev/null", 0),
        ("cachelab seed --count -1 2>&-", 2),
        ("PYTHONIOENCODING=ascii cachelab seed --prefix é", 0),
    ],
)
def test_a_stream_that_was_closed_stops_no_command(line, status, env):
    done = shell(line, env)
    assert done.returncode == status and "Traceback" not in done.stderr


def test_a_closed_stream_gives_its_number_to_the_next_file_unless_it_is_opened_anew(env, tmp_path):
    code = f"import sys; f = open('{tmp_path}/f', 'w'); print(f.fileno(), file=sys.stderr)"
    assert shell(f"'{sys.executable}' -c \"{code}\" >&-", env).stderr == "1\n"  # control
    code = "from cachelab._streams import _open_streams; _open_streams(); " + code
    assert int(shell(f"'{sys.executable}' -c \"{code}\" >&-", env).stderr) > 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_is_told_in_one_line(env):
    done = shell("cachelab doctor >/dev/full", env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


class Written:
    """A stream as notebooks and loggers put in place of stdout: it can be written to."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_output_may_be_redirected_to_any_object_that_can_be_written_to(monkeypatch, env):
    monkeypatch.setenv("REDIS_URL", env["REDIS_URL"])
    for stream in (Written(), io.StringIO()):
        with contextlib.redirect_stdout(stream):
            assert main(["seed", "--count", "3"]) == 0
        assert "3 users in" in (stream.text if isinstance(stream, Written) else stream.getvalue())
    assert not hasattr(io.StringIO(), "reconfigure")  # control


def test_input_may_come_from_any_object_that_can_be_read(monkeypatch, env, capsys):
    monkeypatch.setenv("REDIS_URL", env["REDIS_URL"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("user-1\n"))
    assert main(["ask", *FAST]) == 0
    assert "Hits 1, misses 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("users", "warm", "advice"),
    [
        ("0", "5", "Try nobody twice."),
        ("10", "5000", "Try user-1, and nobody twice."),
        ("10", "0", "Try user-1 twice."),
        ("10", "4", "Try user-1, and user-5 twice."),
    ],
)
@both
def test_the_prompt_advises_what_there_is_to_see(piped, kind, users, warm, advice):
    child = piped("ask", "--latency", "0", "--users", users, "--warm", warm, *kind)
    typed = [word for word in re.findall(r"[\w-]+", advice) if re.match("user-|nobody", word)]
    asked = [*typed[:-1], typed[-1], typed[-1]]
    out, errors = child.communicate("\n".join(asked) + "\n", timeout=PATIENCE)
    assert advice in out and errors == ""
    outcomes = ["hit"] * (len(typed) - 1) + ["miss", "hit"]
    assert re.findall(" (hit|miss)  ", out) == outcomes


LIMITED = "ulimit -S -n {}; '{}' -c '{}'"
COUNT = (
    "import resource; from cachelab._limits import raise_open_files; raise_open_files(); "
    "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
)


@pytest.mark.parametrize("soft", [256, 4096])
def test_a_process_may_open_as_many_files_as_a_lesson_needs(env, soft):
    assert shell(LIMITED.format(soft, sys.executable, COUNT), env).stdout == "4096\n"


def test_a_lower_hard_limit_is_heeded(env):
    done = shell(f"ulimit -n 300; {LIMITED.format(256, sys.executable, COUNT)}", env)
    assert (done.stdout, done.stderr) == ("300\n", "")


def test_a_command_raises_the_limit_for_itself(env):
    code = "import sys; from cachelab.cli import commands; commands.main([]); "
    code += "import resource; sys.exit(resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 256)"
    assert shell(LIMITED.format(256, sys.executable, code), env).returncode == 0


def test_serve_prints_commands_with_the_interpreter_that_runs_it(piped, tmp_path):
    child = piped("serve")
    wanted = f"    {sys.executable} -m cachelab ask\n"
    assert any(line == wanted for line in iter(child.stdout.readline, ""))
    child.send_signal(signal.SIGINT)
    assert child.wait(PATIENCE) == 0


def test_charts_from_a_copy_without_notebooks_says_what_to_do(monkeypatch, tmp_path, capsys):
    from cachelab.lab import notebooks

    monkeypatch.setattr(notebooks, "found", lambda: [])
    for command in (["charts"], ["charts", "--only", "05"]):
        assert main(command) == 2
        out, errors = capsys.readouterr()
        assert out == "" and "There are no notebooks" in errors and "clone" in errors


def test_a_command_that_needs_more_than_the_core_names_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(_extras, "missing", lambda extra: ["nbclient"])
    assert main(["charts"]) == 2
    assert "pip install 'cachelab[lab]'" in capsys.readouterr().err


@pytest.fixture
def notebook(tmp_path) -> Path:
    """A notebook that shows where its kernel keeps temporary files and how many it may open."""
    source = "import resource; resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256"
    path = tmp_path / "00_small.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    return path


RUN = (
    "import sys; from cachelab.lab.notebooks import execute; "
    "print(execute(sys.argv[1]).cells[0].outputs[0].data)"
)


def test_a_notebook_runs_where_a_shell_allows_few_files_and_the_temporary_folder_is_deep(
    notebook, tmp_path, env
):
    deep = tmp_path / ("x" * (95 - len(str(tmp_path)) - 1))
    deep.mkdir()
    with pytest.raises(OSError, match="too long"), socket.socket(socket.AF_UNIX) as link:
        link.bind(f"{deep}/cachelab-run-12345678/k-ipc-5")  # control
    done = shell(
        LIMITED.format(256, sys.executable, f"{RUN}' '{notebook}"), env | {"TMPDIR": str(deep)}
    )
    assert (done.stdout, done.stderr) == ("{'text/plain': 'True'}\n", "")
    assert not list(deep.iterdir())


def test_where_no_folder_is_short_enough_a_sentence_says_so(monkeypatch):
    from cachelab.lab import notebooks

    monkeypatch.setattr(notebooks.tempfile, "tempdir", "/" + "x" * 94)
    monkeypatch.setattr(notebooks.os, "access", lambda folder, mode: folder.startswith("/x"))
    with pytest.raises(notebooks.NotebookError, match="95 bytes, .* TMPDIR=/tmp"):
        notebooks._short_folder()
