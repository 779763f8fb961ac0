"""The wheel as an engineer installs it: the core alone, where nothing else is installed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROBE = """
import asyncio, cachelab as cl
users = cl.CacheAside(cl.connect(), load=str.upper, ttl=60, prefix="one:")
print(users.get("ada"), users.get("ada"), users.stats.hits)

async def main():
    client = cl.connect_async()
    async def load(id): return id.upper()
    users = cl.AsyncCacheAside(client, load=load, ttl=60, prefix="two:")
    print(await users.get("ada"), await users.get("ada"), users.stats.hits)
    print((await cl.seed_async(client, count=3, prefix="three:")).written)
    await client.connection_pool.disconnect()

asyncio.run(main())
"""


def rewheeled(name: str, folder: Path) -> None:
    """Make a wheel of a project that is installed here, so that installing it needs no network."""
    project = metadata.distribution(name)
    tag = next(line[5:] for line in project.read_text("WHEEL").splitlines() if line[:4] == "Tag:")
    stem = f"{project.name.replace('-', '_')}-{project.version}"
    files = [file for file in project.files if ".." not in file.parts and file.suffix != ".pyc"]
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as wheel:
        for file in files:
            if file.name not in ("RECORD", "INSTALLER", "REQUESTED"):
                wheel.write(project.locate_file(file), file)
        record = next(file for file in files if file.name == "RECORD")
        wheel.writestr(str(record), "".join(f"{name},,\n" for name in wheel.namelist()))


def core() -> set[str]:
    """Return the projects that `pip install cachelab` brings on this machine."""
    brought, ask = set(), [Requirement("cachelab")]
    while ask:
        one = ask.pop()
        for line in metadata.requires(one.name) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if not marker or any(marker.evaluate({"extra": e}) for e in {"", *one.extras}):
                brought.add(requirement.name)
                ask.append(requirement)
    return brought


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: a build leaves things lying about."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("cachelab", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", copy]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = copy.glob("dist/*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The Python of a new environment in which `pip install cachelab` has been run, offline."""
    wheels, venv = wheel.parent, tmp_path_factory.mktemp("engineer") / "venv"
    for name in core():
        rewheeled(name, wheels)
    made = subprocess.run([sys.executable, "-m", "venv", venv], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this Python makes no environments: {made.stdout.strip().splitlines()[0]}")
    pip = [venv / "bin/python", "-m", "pip", "install", "--no-index", "--find-links", wheels]
    done = subprocess.run([*pip, "cachelab"], capture_output=True, text=True, env=clean())
    assert done.returncode == 0, done.stdout + done.stderr
    return venv / "bin/python"


def clean(**more: str) -> dict[str, str]:
    """Return an environment that names no server, and bends neither Python nor pip."""
    bends = ("REDIS_", "CACHELAB_", "PYTHON", "PIP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(bends)}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return kept | pip | more


@pytest.fixture
def run(python, tmp_path):
    """Run that Python far from the sources; return its exit status and what it said."""

    def run(*arguments: str, **env: str) -> tuple[int, str]:
        done = subprocess.run(
            [python, *arguments], cwd=tmp_path, env=clean(**env), capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_wheel_holds_the_types_and_the_data_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    sources = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("cachelab/**/*.*")}
    wanted = {name for name in sources if "__pycache__" not in name}
    assert {"cachelab/py.typed", "cachelab/lab/draw/house.mplstyle"} <= wanted
    assert wanted <= set(names)
    assert all(name.startswith(("cachelab/", "cachelab-")) for name in names)


def test_pip_brings_redis_and_what_redis_brings_and_nothing_else(run):
    status, said = run("-m", "pip", "list", "--format=freeze")
    installed = {line.partition("==")[0].lower() for line in said.splitlines()}
    assert status == 0 and {"cachelab", "redis", "hiredis"} <= installed
    assert installed - {"pip", "setuptools", "wheel"} == {"cachelab"} | {n.lower() for n in core()}


def test_the_core_reads_through_both_caches_and_seeds(run, server):
    assert run("-W", "error", "-c", PROBE, REDIS_URL=server.url) == (0, "ADA ADA 1\nADA ADA 1\n3\n")


NEEDY = {
    "import cachelab; cachelab.Server": "server",
    "import cachelab; cachelab.UserDatabase": "database",
    "from cachelab.lab import timing": "lab",
    "import cachelab as cl; cl.connect()": "server",
    "import cachelab as cl; cl.seed(cl.connect('{url}'), progress=True)": "lab",
}


@pytest.mark.parametrize("code", NEEDY)
def test_what_needs_an_extra_says_so_with_the_pip_command(run, server, client, code):
    status, said = run("-c", code.format(url=server.url))
    last = said.splitlines()[-1]
    assert status == 1 and last.startswith("cachelab.") and "Error: " not in last.partition(": ")[2]
    assert f"`pip install 'cachelab[{NEEDY[code]}]'`" in last
    assert client.dbsize() == 0


def test_the_command_line_shows_its_help(run):
    status, said = run("-m", "cachelab", "--help")
    assert status == 0 and "doctor" in said


def test_the_doctor_says_once_what_is_missing_and_finds_the_core_well(run, server):
    status, said = run("-m", "cachelab", "doctor", REDIS_URL=server.url)
    states = dict(re.findall(r"^(\w+) +(ok|missing|old|away) ", said, re.M))
    assert status == 0 and list(states.values()).count("missing") == 1
    assert {states[part] for part in ("Python", "redis", "hiredis", "server")} == {"ok"}
    assert said.count("pip install 'cachelab[") == 1


@pytest.mark.parametrize(
    ("command", "extra"), [("charts", "lab"), ("serve", "server"), ("ask", r"(database|lab)")]
)
def test_a_command_whose_extra_is_missing_says_so_in_one_line(run, server, command, extra):
    status, said = run("-m", "cachelab", command, REDIS_URL=server.url)
    assert status == 2 and len(said.splitlines()) == 1
    assert re.search(rf"`pip install 'cachelab\[{extra}\]'`", said)


def test_the_command_line_seeds_without_an_extra(run, server):
    status, said = run("-m", "cachelab", "seed", "--count", "10", REDIS_URL=server.url)
    assert status == 0 and said.startswith("10 users in ")


@pytest.mark.further
def test_a_wheelhouse_made_as_the_readme_says_installs_without_a_network(python, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    download, install = re.findall(r"pip (download [^`\n]*|install --no-index [^`\n]*)", readme)
    lock = re.split(r"\n(?=\S)", (ROOT / "requirements.txt").read_text(encoding="utf-8"))
    locked = [entry for entry in lock if re.match("(async-timeout|hiredis|redis)==", entry)]
    assert len(locked) == 3
    (tmp_path / "requirements.txt").write_text("\n".join(locked))

    def pip(arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess:
        command = [python, "-m", "pip", *shlex.split(arguments)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    def installed() -> bool:
        return not pip(f"{install} --target site", clean(PIP_NO_INDEX="1")).returncode

    made = pip(download, dict(os.environ))  # with what is set for the index
    assert made.returncode == 0, made.stderr
    assert installed() and (tmp_path / "site/hiredis").is_dir()
    shutil.rmtree(tmp_path / "site")
    wheel = next(tmp_path.glob("wheelhouse/redis-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"changed")
    assert not installed()  # control: a wheel that is not the locked one
    wheel.unlink()
    assert not installed()  # control: what is missing comes from nowhere else
