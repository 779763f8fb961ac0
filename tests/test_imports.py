"""Who may import whom: rooms import from the floors below them, no modules go round in a circle.

Read from the source, so that an import inside a function counts, and one that a string names.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# A package's rooms, floor by floor from the ground: each may import from the floors below it.
FLOORS = {
    "cachelab": [
        "errors _check _limits _locks _loops _secret _streams",
        "_extras _urls users",
        "database server",
        "clients",
        "cache seeder",
        "writes smart",
        "apps metrics",
        "__init__",
        "lab",
        "cli",
        "__main__",
    ],
    "cachelab.lab": [
        "alarm asserts cells",
        "__init__ exercise",
        "measure hits notebooks",
        "draw contract",
        "findings faults watch",
        "overlay claims",
        "panels",
    ],
}
LAZY = {  # imports that wait until they are needed, never made as the module is imported
    ("cachelab.__init__", "cachelab.database"): "the name needs an extra",
    ("cachelab.__init__", "cachelab.server"): "the name needs an extra",
    ("cachelab.clients", "cachelab.server"): "only a process that was given no server starts one",
    ("cachelab.cli", "cachelab.lab"): "the bench is heavy, and needs an extra",
}
AGAINST = {  # imports against the table, each with the reason why it may stand
}
OUTSIDE = {  # what a room imports from other projects, beside redis; only the bench does so at once
    "apps": "jinja2 sqlalchemy starlette uvicorn",
    "database": "sqlalchemy",
    "metrics": "prometheus_client",
    "seeder": "tqdm",
    "writes": "sqlalchemy",
    "cli": "jupyter_server nbformat packaging prometheus_client sqlalchemy tqdm",
}


class Import(NamedTuple):
    target: str
    is_lazy: bool


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in sorted(ROOT.glob("cachelab/**/*.py"))}


def resolved(name: str) -> str:
    """Return the module that an imported name is: itself, one that a package lends, the package."""
    if name in FILES or not name.startswith("cachelab"):
        return name
    package, _, last = name.rpartition(".")
    lent = [m for m in FILES if m.startswith(f"{package}.") and m.endswith(f".{last}")]
    return lent[0] if len(lent) == 1 else package


def names_module(function: ast.expr) -> bool:
    return ast.unparse(function).endswith(("import_module", "__import__"))


def imports(source: str, package: str) -> set[Import]:
    """Return what a module of this package imports; a type checker's imports count as lazy ones."""

    def found(node: ast.AST, is_lazy: bool) -> Iterator[Import]:
        match node:
            case ast.Import():
                yield from (Import(resolved(alias.name), is_lazy) for alias in node.names)
            case ast.ImportFrom():
                above = package.split(".")[: len(package.split(".")) + 1 - node.level]
                base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
                yield from (Import(resolved(f"{base}.{a.name}"), is_lazy) for a in node.names)
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if names_module(node.func):
                yield Import(resolved(name), True)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for child in node.body:
                    yield from found(child, True)
                for child in node.orelse:
                    yield from found(child, is_lazy)
            case _:
                waits = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                for child in ast.iter_child_nodes(node):
                    yield from found(child, is_lazy or waits)

    return set(found(ast.parse(source), False))


def imports_of(module: str) -> set[Import]:
    path = FILES[module]
    is_package = path.name == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    return {one for one in imports(path.read_text(), package) if one.target != module}


def room_of(module: str, package: str) -> str | None:
    """Return the room of a package that a module stands in, None when it stands elsewhere."""
    if module == package:
        return "__init__"
    return module[len(package) + 1 :].split(".")[0] if module.startswith(f"{package}.") else None


def faults(module: str, found: set[Import]) -> set[str]:
    """Return what is wrong with the imports of a module by the tables above."""
    wrong = set()
    for package, floors in FLOORS.items():
        floor = {room: at for at, rooms in enumerate(floors) for room in rooms.split()}
        here = room_of(module, package)
        for target, is_lazy in found:
            there = room_of(target, package)
            if None in (here, there) or here == there or (module, target) in AGAINST:
                continue
            if not floor.keys() >= {here, there}:
                wrong.add(f"{package}: {here} or {there} stands in no row of the table")
            elif floor[there] >= floor[here]:
                wrong.add(f"{package}: {here} is not above {there}, and imports {target}")
            if not is_lazy and (f"{package}.{here}", f"{package}.{there}") in LAZY:
                wrong.add(f"{package}: {here} imports {target} before it is needed")
    room = room_of(module, "cachelab")
    for target, is_lazy in found if room != "lab" else ():
        project = target.split(".")[0]
        if project in {"cachelab", "redis"} | sys.stdlib_module_names:
            continue
        if project not in OUTSIDE.get(room, "").split() or not is_lazy:
            wrong.add(f"{room} imports {project}")
    return wrong


def circle(graph: dict[str, set[str]]) -> str:
    """Return modules that import each other in a circle, "" if there is no circle."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " < ".join(error.args[1])
    return ""


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_from_the_floors_below_it(module):
    assert faults(module, imports_of(module)) == set()


@pytest.mark.parametrize("package", FLOORS)
def test_every_file_stands_in_a_row_of_the_table_and_every_row_on_the_disk(package):
    rooms = " ".join(FLOORS[package]).split()
    found = {room_of(module, package) for module in FILES} - {None}
    assert sorted(rooms) == sorted(found)


def test_the_table_that_contributors_read_is_this_one():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.M)
    told = {int(floor): set(re.findall(r"`(\w+)`", rooms)) for floor, rooms in rows}
    assert told == {at: set(rooms.split()) for at, rooms in enumerate(FLOORS["cachelab"])}
    (line,) = re.findall(r"^Inside `lab/`, from the ground: (.+)", text, re.M)
    told = [set(re.findall(r"`(\w+)`", rooms)) for rooms in line.split("<")]
    assert told == [set(rooms.split()) for rooms in FLOORS["cachelab.lab"]]


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module: {one.target for one in imports_of(module) if (module, one.target) not in AGAINST}
        for module in FILES
    }
    assert circle(graph) == ""
    assert circle(graph | {"cachelab.errors": {"cachelab.cache.aside"}})  # the control


def test_what_the_tables_allow_is_still_in_use():
    found = {(module, one.target) for module in FILES for one in imports_of(module)}
    rooms = {
        (f"cachelab.{room_of(one, 'cachelab')}", f"cachelab.{room_of(other, 'cachelab')}")
        for one, other in found
        if other.startswith("cachelab")
    }
    assert AGAINST.keys() <= found and LAZY.keys() <= rooms


FORBIDDEN = {
    "upwards": ("cachelab.clients.client", "from cachelab.cache.aside import CacheAside"),
    "upwards in a function": (
        "cachelab.cache.codec",
        "def f():\n    import cachelab.lab.draw.charts",
    ),
    "upwards by a string": ("cachelab.errors", "import_module('cachelab.clients')"),
    "upwards by a relative import": ("cachelab.cache.codec", "from ..lab import timing"),
    "upwards for a type checker": (
        "cachelab.server.guard",
        "if TYPE_CHECKING:\n    from cachelab import seed",
    ),
    "to a neighbour": ("cachelab.seeder", "from cachelab.cache import codec"),
    "within the bench": ("cachelab.lab.hits.replay", "from cachelab.lab import widgets"),
    "of the bench as the command line starts": (
        "cachelab.cli.commands",
        "from cachelab.lab import charts",
    ),
    "of what an extra brings": ("cachelab.cache.aside", "def f():\n    import numpy as np"),
    "of an extra before it is needed": ("cachelab.database", "import sqlalchemy"),
}


@pytest.mark.parametrize(("module", "source"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_forbidden_import_would_be_seen(module, source):
    assert len(faults(module, imports(source, module.rpartition(".")[0]))) == 1
