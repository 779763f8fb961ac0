"""Asserts without a message, in cells of a real kernel: what they say, and what stays as it was."""

import ast
import subprocess
import sys
import textwrap

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from cachelab.lab import asserts
from cachelab.lab.notebooks import execute

SETUP = """
import asyncio
from cachelab.lab.exercise import check

log = []
ticks = iter([1, 2])

def f(value):
    log.append(value)
    return value
"""
FAIL = {
    "f(1) > f(2)": "expected: f(1) > f(2)\nseen: f(1) = 1, f(2) = 2",
    "f(1) < f(3) < f(2) < f(9)": "seen: f(1) = 1, f(3) = 3, f(2) = 2\n",
    "f('a') == 'b'": "seen: f('a') = 'a'\n",
    "f(1) == -1": "seen: f(1) = 1\n",
    "f(1) == 1 and (f(2) == 3 or f([7]) == [8])": "seen: f(1) = 1, f(2) = 2, f([7]) = [7]\n",
    "f(1) == 2 and f(3) == 3": "seen: f(1) = 1\n",
    "next(ticks) > next(ticks)": "seen: next(ticks) = 1, next(ticks) = 2\n",
    "f(3) > 2 and f(3) > 4": "seen: f(3) = 3\n",
    "not f(1)": "expected: not f(1)\nUsually another program",
    "(n := f(4)) == 5": "seen: (n := f(4)) = 4",
    "await asyncio.sleep(0, 'x') in 'y'": "seen: await asyncio.sleep(0, 'x') = 'x'",
    "f(range(9)) == f('x' * 999)": "= range(0, 9), f('x' * 999) = 'xxxx",
}
PASS = {
    "all compare": "assert f(1) < f(2) < f(3) != 4 and f(4)\nlog[-4:]",
    "one is enough": "assert f(5) == 5 or f(6)\nlog[-1]",
    "nothing stays": "'_seen' in globals()",
    "as a function": "def one():\n    assert f(7) == 7\n    return sorted(locals())\n\none()",
    "with magic": "%%time\nassert f(1) == 1",
    "its source": "import inspect\nprint(inspect.getsource(one))",
}
ELSEWHERE = {
    "in a function": ("def two():\n    assert f(7) == 8\n\ntwo()", "seen: f(7) = 7\n"),
    "with magic": ("%%time\nassert f(1) == 2", "seen: f(1) = 1\n"),
    "in a coroutine": (
        "async def three():\n    assert f(1) == 3\n\nawait three()",
        "expected: f(1) == 3",
    ),
}
OTHERWISE = {
    "its own words": ("assert f(1) == 2, 'mine'", "mine"),
    "an error in it": ("\nassert (f(1) ==\n        1 / 0)", "division by zero"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the cells of one notebook tell, by their source."""
    path = tmp_path_factory.mktemp("asserts") / "00_small.ipynb"
    raises = {"tags": ["raises-exception"]}
    sources = [f"assert {test}" for test in FAIL] + [
        one for one, _ in (ELSEWHERE | OTHERWISE).values()
    ]
    cells = [new_code_cell(one) for one in (SETUP, *PASS.values(), CHECKED, "assert f(0) == 0")]
    cells += [new_code_cell(one, metadata=raises) for one in sources]
    nbformat.write(new_notebook(cells=cells), path)
    return {cell.source: text(cell) for cell in execute(path).cells}


CHECKED = "def claims():\n    assert f(3) == 4\n\ncheck('four', {'it is four': claims})"


def text(cell) -> str:
    parts = []
    for out in cell.outputs:
        parts += [out.get("text", ""), *out.get("traceback", [])]
        parts += [out.get("data", {}).get("text/plain", "")]
    return "\n".join(parts).strip()


@pytest.mark.parametrize("test", FAIL)
def test_an_assert_that_fails_says_what_was_expected_and_what_was_seen(told, test):
    assert FAIL[test] in told[f"assert {test}"] and asserts.BUSY in told[f"assert {test}"]


@pytest.mark.parametrize(("source", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_assert_is_explained_wherever_it_stands(told, source, words):
    assert words in told[source] and asserts.BUSY in told[source]


@pytest.mark.parametrize(("source", "words"), OTHERWISE.values(), ids=OTHERWISE)
def test_words_of_its_own_and_errors_in_it_stay_as_they_are(told, source, words):
    assert words in told[source] and asserts.BUSY not in told[source]


def test_operands_are_evaluated_once_and_no_more_of_them_than_before(told):
    assert told[PASS["all compare"]] == "[1, 2, 3, 4]" and told[PASS["one is enough"]] == "5"


def test_nothing_of_it_stays_in_the_cells_or_in_their_source(told):
    assert told[PASS["nothing stays"]] == "False" and told[PASS["as a function"]] == "[]"
    assert told[PASS["its source"]] == PASS["as a function"].rpartition("\n\n")[0]


def test_a_check_tells_what_an_assert_of_its_has_seen_and_blames_no_machine(told):
    assert "not yet  it is four (expected: f(3) == 4; seen: f(3) = 3)" in told[CHECKED]


def test_lines_are_those_of_the_assert():
    tree = asserts.Explained().visit(ast.parse("one = 1\n\nassert (one >\n        2)\n"))
    lines = {node.lineno for node in ast.walk(tree) if hasattr(node, "lineno")}
    assert lines == {1, 3, 4}
    compile(tree, "<cell>", "exec")


def test_without_it_an_assert_says_nothing():
    with pytest.raises(AssertionError) as caught:
        exec("assert 1 > 2")  # noqa: S102
    assert str(caught.value) == ""


def test_outside_a_kernel_nothing_is_loaded_and_nothing_changed():
    program = (
        "import sys, cachelab.lab\nprint({'IPython', 'cachelab.lab.asserts'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_a_shell_is_told_once(monkeypatch):
    shell = type("Shell", (), {"ast_transformers": []})()
    ipython = type("IPython", (), {"get_ipython": staticmethod(lambda: shell)})
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    asserts.explain()
    asserts.explain()
    assert [type(one) for one in shell.ast_transformers] == [asserts.Explained]


def test_the_example_of_the_module_is_what_it_makes():
    source = "assert hits > misses"
    made = ast.unparse(asserts.Explained().visit(ast.parse(source))).replace("'", '"')
    shown = textwrap.dedent(asserts.__doc__.partition("becomes\n")[2]).strip()
    assert made.replace('__import__("cachelab.lab.asserts", fromlist=["Seen"]).', "") == shown
