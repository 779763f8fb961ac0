"""Setting up: what make says and redoes, what the locks hold, whether README.md is true."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("requirements.txt", "requirements-browser.txt")
}
TOOLS = "make sh bash cat chmod dirname echo env id kill ln mkdir pwd rm sed sleep uname".split()

# Stands in for uv: makes a .venv whose Python always answers yes, and notes what it was asked,
# and with which settings.
UV = """#!/bin/sh
case $1 in
venv) mkdir -p .venv/bin && printf '#!/bin/sh\\n' >.venv/bin/python && chmod +x .venv/bin/python ;;
pip) env >environment; [ ! -p gate ] || cat gate ;;
esac
echo "$@" >>asked
[ ! -e broken ] || [ "$1" != pip ]
"""


class Clone:
    """A copy of the set-up's files, and a PATH of plain tools and what a test puts there."""

    def __init__(self, folder: Path):
        self.folder, self.bin = folder / "a clone", folder / "bin"
        self.folder.mkdir()
        self.bin.mkdir()
        for name in ("Makefile", "setup.sh", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))

    def program(self, name: str, text: str) -> None:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def python(self, version: str, ensurepip: bool = True) -> None:
        """Put a python3 on the PATH that says it has this version."""
        old = tuple(map(int, version.split("."))) < (3, 11)
        answer = f"echo {version} /opt/py/python3; exit {old:d}"
        self.program(
            "python3",
            f"#!/bin/sh\ncase $2 in *ensurepip*) exit {1 - ensurepip} ;; *) {answer} ;; esac\n",
        )

    def start(self, *arguments: str, **env: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            ["make", *arguments], cwd=self.folder, env={"PATH": str(self.bin)} | env, **pipes
        )

    def make(self, *arguments: str, **env: str) -> tuple[int, str]:
        """Return the exit status and all that make said."""
        with self.start(*arguments, **env) as process:
            said = process.communicate(timeout=30)[0]
        return process.returncode, said

    def stale(self, *arguments: str) -> bool:
        return "sh setup.sh" in self.make("-n", "setup", *arguments)[1]


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture
def ready(clone) -> Clone:
    """A clone whose set-up is finished."""
    clone.python("3.12.1")
    clone.program("uv", UV)
    assert clone.make("setup")[0] == 0
    return clone


@pytest.mark.parametrize(
    ("system", "remedy"), [("Linux", "sudo apt install python3"), ("Darwin", "brew install")]
)
def test_a_python_that_is_too_old_is_named_with_what_to_install(clone, system, remedy):
    clone.python("3.9.6")
    clone.program("uname", f"#!/bin/sh\necho {system}\n")
    status, said = clone.make("lab")
    assert (
        status and "needs Python 3.11 or newer; python3 is Python 3.9.6" in said and remedy in said
    )
    assert ("Apple's own python3 is too old" in said) == (system == "Darwin")


def test_no_python_at_all_is_told_apart_from_an_old_one(clone):
    status, said = clone.make("setup")
    assert status and "found no Python" in said


def test_a_name_that_only_prints_an_error_is_passed_over_for_a_newer_python(clone):
    clone.python("3.13.0")
    (clone.bin / "python3").rename(clone.bin / "python3.13")
    clone.program("python3", "#!/bin/sh\necho 'pyenv: python3: command not found'; exit 127\n")
    clone.program("uv", UV)
    status, said = clone.make("setup")
    assert status == 0 and "Making .venv with Python 3.13.0" in said


def test_a_python_without_venv_is_told_the_package_that_brings_it(clone):
    clone.python("3.12.3", ensurepip=False)
    status, said = clone.make("setup")
    assert status and "sudo apt install python3.12-venv" in said
    clone.program("uv", UV)
    assert clone.make("setup")[0] == 0  # uv needs no ensurepip


def test_windows_is_sent_to_wsl_or_compose(clone):
    clone.program("uname", "#!/bin/sh\necho MINGW64_NT-10.0\n")
    status, said = clone.make("setup")
    assert status and "WSL or docker compose" in said


def test_a_finished_setup_is_not_done_again_until_the_lock_or_the_project_changes(ready):
    assert not ready.stale()
    for name in ("requirements.txt", "pyproject.toml"):
        os.utime(ready.folder / ".venv/.ready", (1, 1))
        os.utime(ready.folder / name)
        assert ready.stale()
        assert "Bringing .venv up to date" in ready.make("setup")[1]
        assert not ready.stale()


def test_a_venv_that_lost_its_python_is_made_again(ready):
    (ready.folder / ".venv/bin/python").unlink()
    assert ready.stale()
    assert "Making .venv" in ready.make("setup")[1]


def test_a_venv_that_was_moved_is_made_again(ready):
    ready.folder = ready.folder.rename(ready.folder.with_name("moved"))
    assert ready.stale()
    assert "Making .venv" in ready.make("setup")[1] and not ready.stale()


def test_naming_another_python_makes_the_venv_with_it(ready):
    assert ready.stale("PYTHON=python3")


def test_a_setup_that_was_cut_short_is_done_anew(clone):
    clone.python("3.12.1")
    clone.program("uv", UV)
    (clone.folder / "broken").touch()
    status, said = clone.make("setup")
    assert status and "did not finish" in said and clone.stale()
    (clone.folder / "broken").unlink()
    assert "Making .venv" in clone.make("setup")[1] and not clone.stale()


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_venv_that_was_made_by_hand_stays_and_the_ways_on_are_told(clone, is_ours):
    clone.python("3.12.1")
    clone.program("uv", UV)
    mine = clone.folder / ".venv/bin/mine"
    mine.parent.mkdir(parents=True)
    for file in (mine, clone.folder / ".venv/pyvenv.cfg"):
        file.touch()
    if is_ours:  # control
        (clone.folder / ".venv/.ours").touch()
    for arguments in (["setup"], ["setup", "PYTHON=python3"]):
        status, said = clone.make(*arguments)
        assert mine.exists() != is_ours and (status == 0) == is_ours
        assert ("rm -rf .venv  " in said) != is_ours


# Makes a real .venv, with a .pth file in the encoding of the locale, as setuptools leaves it there.
REAL_UV = f"""#!/bin/sh
site=$(echo .venv/lib/python*/site-packages)
case "$*" in
venv*) {sys.executable} -m venv --without-pip .venv ;;
*" -r "*) : >"$site/hiredis.py" ;;
*) .venv/bin/python -c 'import locale, os, sys
with open(sys.argv[1], "w", encoding=locale.getencoding()) as pth:
    pth.write(os.getcwd())' "$site/__editable__.cachelab-0.pth" ;;
esac
"""


def test_in_a_folder_with_an_umlaut_a_setup_works_in_the_c_locale_as_in_others(clone):
    clone.folder = clone.folder.rename(clone.folder.with_name("ü"))
    clone.python("3.12.1")
    clone.program("uv", REAL_UV)
    (clone.folder / "here.py").touch()

    def starts(locale: str) -> bool:
        command = [clone.folder / ".venv/bin/python", "-c", "import here"]
        return not subprocess.run(command, env={"LC_ALL": locale}, capture_output=True).returncode

    for first, then in (("C", "C.UTF-8"), ("C.UTF-8", "C")):
        shutil.rmtree(clone.folder / ".venv", ignore_errors=True)
        status, said = clone.make("setup", LC_ALL=first)
        assert status == 0, said
        assert "sh setup.sh" not in clone.make("-n", "setup", LC_ALL=then)[1]
        assert starts("C") and starts("C.UTF-8")
    (pth,) = clone.folder.glob(".venv/lib/python*/site-packages/*.pth")
    pth.write_text(str(clone.folder), encoding="utf-8")  # control: as setuptools writes it
    assert starts("C.UTF-8") and starts("C") == (sys.version_info >= (3, 13))


def test_what_a_killed_setup_left_behind_stops_nobody(clone):
    clone.python("3.12.1")
    clone.program("uv", UV)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (clone.folder / ".venv.lock").write_text(f"{gone.pid}\n")
    assert clone.make("setup")[0] == 0 and not (clone.folder / ".venv.lock").exists()


def test_two_terminals_set_up_once(clone):
    clone.python("3.12.1")
    clone.program("uv", UV)
    os.mkfifo(clone.folder / "gate")  # uv waits here for a writer
    with clone.start("setup") as first:
        while not (clone.folder / "environment").exists():
            assert first.poll() is None
        with clone.start("setup") as second:
            assert "Another set-up is at work" in second.stdout.readline()
            with open(clone.folder / "gate", "w"):
                (clone.folder / "gate").unlink()
            assert (first.communicate(timeout=30), first.returncode)[1] == 0
            assert (second.communicate(timeout=30), second.returncode)[1] == 0
    assert (clone.folder / "asked").read_text().count("venv --quiet") == 1


def test_settings_that_bend_an_install_are_dropped_and_those_that_say_from_where_are_kept(clone):
    clone.python("3.12.1")
    clone.program("uv", UV)
    bends = {
        "PIP_TARGET": "/x",
        "PIP_NO_BINARY": ":all:",
        "UV_EXCLUDE_NEWER": "2020-01-01",
        "PYTHONPATH": "/x",
    }
    keeps = {
        "PIP_INDEX_URL": "a",
        "UV_INDEX_HERE_PASSWORD": "b",
        "UV_CACHE_DIR": "c",
        "PIP_CERT": "d",
        "HOME": "e",
    }
    assert clone.make("setup", PIP_USER="1", PIP_CONSTRAINT="/x", **bends, **keeps)[0] == 0
    seen = dict(
        line.split("=", 1)
        for line in (clone.folder / "environment").read_text().splitlines()
        if "=" in line
    )
    assert not bends.keys() & seen.keys() and keeps.items() <= seen.items()
    assert (seen["PIP_USER"], seen["PIP_CONSTRAINT"]) == (
        "0",
        "/dev/null",
    )  # these may stand in a settings file too


def test_everything_is_installed_by_hash_and_the_project_itself_without_dependencies(ready):
    asked = (ready.folder / "asked").read_text().splitlines()
    installs = [line.split(".venv/bin/python ")[1] for line in asked if line.startswith("pip")]
    assert installs == [
        "--require-hashes -r requirements.txt",
        "--no-deps --no-build-isolation --editable .",
    ]


def test_charts_are_quick_unless_scale_says_full(ready):
    assert "-m cachelab charts --scale quick" in ready.make("-n", "charts")[1]
    assert "-m cachelab charts --scale full" in ready.make("-n", "charts", "SCALE=full")[1]


def test_charts_are_of_all_notebooks_unless_some_are_named(ready):
    assert "--only 05 06b\n" in ready.make("-n", "charts", "ONLY=05 06b")[1]
    assert "--only" not in ready.make("-n", "charts")[1]


def test_the_lab_is_started_with_the_options_given_and_anew_when_asked(ready):
    kept, fresh = (ready.make("-n", "lab", "ARGS=--port=9000", f"FRESH={n}")[1] for n in (0, 1))
    assert "-m cachelab lab  --port=9000" in kept and "-m cachelab lab --fresh --port=9000" in fresh


def test_the_dashboard_is_started_with_the_options_given(ready):
    assert (
        "-m cachelab.lab.panels.dashboard --port=8900"
        in ready.make("-n", "dashboard", "ARGS=--port=8900")[1]
    )


def test_the_further_tests_run_after_those_that_anybody_can_run(ready):
    def runs(target: str) -> list[str]:
        return re.findall(r"-m pytest ?(.*)", ready.make("-n", target)[1])

    assert runs("test") == ["-n auto "]
    assert runs("test-all") == ["-n auto ", "-n auto -m further "]
    assert "-m 'not further'" in PROJECT["tool"]["pytest"]["ini_options"]["addopts"]
    assert "make test-all" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_address_and_holds_hashes_for_every_package(name):
    packages = re.split(r"^(?=[a-z0-9])", LOCKS[name], flags=re.M)[1:]
    assert packages and all(
        re.match(r"[\w.-]+==\S+( ;.*)? \\\n    --hash=sha256:", package) for package in packages
    )
    assert not re.search(r"^--|://|@", LOCKS[name], re.M)


def test_the_locks_hold_what_the_project_asks_for():
    extras = PROJECT["project"]["optional-dependencies"]
    own_lock = {"browser", "benchmarks"}
    ours = extras.keys() - own_lock
    wanted = [
        *PROJECT["project"]["dependencies"],
        *(one for extra in ours for one in extras[extra] if not one.startswith("cachelab[")),
        *PROJECT["build-system"]["requires"],
    ]
    assert extras.keys() >= own_lock

    def missing(wanted: list[str], lock: str) -> list[str]:
        names = (re.match(r"[\w.-]+", requirement)[0] for requirement in wanted)
        return [name for name in names if not re.search(rf"^{name}==", lock, re.M)]

    assert missing(wanted, LOCKS["requirements.txt"]) == []
    assert missing(extras["browser"], LOCKS["requirements-browser.txt"]) == []
    assert missing(extras["browser"], LOCKS["requirements.txt"]) == [
        "playwright",  # large, and for CI alone
        "pytest-rerunfailures",  # for CI alone: a person looks why a test failed
    ]


def test_the_readme_has_at_most_120_lines():
    assert len(README.splitlines()) <= 120


def test_the_readme_names_only_make_targets_that_exist():
    named = set(re.findall(r"^make (\w+)|`make (\w+)", README, re.M))
    targets = set(re.findall(r"^(\w+):", MAKEFILE, re.M))
    assert {"lab", "charts", "test"} <= {name or other for name, other in named} <= targets


def test_the_readme_links_only_to_files_that_exist():
    local = [link for link in re.findall(r"\]\((?!https?:)([^)#]+)", README)]
    assert local and [link for link in local if not (ROOT / link).exists()] == []


def test_the_modules_that_contributing_names_exist():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:tests|cachelab)/[\w/]+\.py", contributing))
    assert len(named) > 5 and {name for name in named if not (ROOT / name).exists()} == set()


def test_the_readme_gives_the_commands_that_the_setup_runs():
    block = README.split("## Without make")[1].split("```")[1]
    setup = (ROOT / "setup.sh").read_text(encoding="utf-8")
    for step in re.findall(r"pip install (.+)", block):
        assert f"install {step}" in setup
    assert (
        re.search(r"^test: .*\n\t\$\(PY\) -m pytest", MAKEFILE, re.M)
        and ".venv/bin/python -m pytest" in block
    )


def test_the_commands_of_the_readme_are_known_to_the_command_line():
    shown = subprocess.run(
        [sys.executable, "-m", "cachelab", "--help"], capture_output=True, text=True, check=True
    ).stdout
    named = set(re.findall(r"python -m cachelab (\w+)", README))
    assert {"doctor", "charts"} <= named and all(re.search(rf"\b{name}\b", shown) for name in named)


def test_the_example_of_the_readme_runs():
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REDIS_", "CACHELAB_"))
    }
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True
    )
    assert run.returncode == 0 and re.search(r"hits=1\b.*misses=1\b", run.stdout), run.stderr
    assert len(code.splitlines()) <= 12


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_ruff_has_nothing_to_say(command):
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *command.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("script", ["setup.sh", ".ci/run"])
def test_the_scripts_parse(script):
    shell = "bash" if script == ".ci/run" else "sh"
    assert subprocess.run([shell, "-n", ROOT / script]).returncode == 0
