"""The package as a whole: which way the imports point, what an import costs, what no file may hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = [path for path in sorted(ROOT.glob("cachelab/*.py")) if path.name != "__main__.py"]
FILES = sorted(ROOT.glob("cachelab/**/*.py")) + sorted(ROOT.glob("notebooks/solutions/*.py"))


def imported(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def wanders(source: str) -> set[str]:
    heavy = ("cachelab.lab", "pandas", "matplotlib", "ipywidgets", "numpy", "IPython")
    return {name for name in imported(source) if name.startswith(heavy)}


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_imports_neither_the_bench_nor_what_draws(path):
    assert not wanders(path.read_text())


def test_an_import_of_the_bench_would_be_seen():
    assert wanders("def f():\n    from cachelab.lab import charts\n    import pandas as pd\n") == {
        "cachelab.lab.charts",
        "pandas",
    }


def careless(source: str) -> set[str]:
    """Calls that run data as code, and exceptions that are swallowed."""
    found = imported(source) & {"pickle", "marshal", "shelve"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            found.add(node.func.id)
        if isinstance(node, ast.keyword) and node.arg == "shell" and getattr(node.value, "value", None) is True:
            found.add("shell=True")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.add("bare except")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_runs_data_or_swallows_errors(path):
    assert not careless(path.read_text())


def test_carelessness_would_be_seen():
    source = "import pickle\ntry:\n    eval('1')\nexcept:\n    subprocess.run('ls', shell=True)\n"
    assert careless(source) == {"pickle", "eval", "bare except", "shell=True"}


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, cachelab; print({'pandas', 'matplotlib', 'ipywidgets', 'sqlalchemy', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_every_file_passes_the_linter():
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "."], ["format", "--check", "cachelab", "tests", "benchmarks", "notebooks/solutions"]):
        done = subprocess.run([*ruff, *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
