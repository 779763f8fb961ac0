"""Asserts in cells that say what they expected and what was seen, without a message of their own.

In a kernel `assert hits > misses` becomes

    _seen = Seen()
    assert _seen("hits", hits) > _seen("misses", misses), _seen.told("hits > misses")
    del _seen
"""

import ast
import numbers
import reprlib
import sys
from typing import TypeVar

BUSY = (
    "Usually another program kept this machine busy: "
    "close what you can, then Kernel > Restart and Run All."
)

T = TypeVar("T")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 10


def explain() -> None:
    """Have the asserts of this kernel's cells explained, from the next cell on; once is enough."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell and not any(isinstance(one, Explained) for one in shell.ast_transformers):
        shell.ast_transformers.append(Explained())


class Seen:
    """Remembers the values that a comparison compares."""

    def __init__(self):
        self.values: list[tuple[str, object]] = []

    def __call__(self, source: str, value: T) -> T:
        """Return the value, and remember it with its source."""
        self.values.append((source, value))
        return value

    def told(self, expected: str) -> str:
        """Return what was expected and what was seen; as a message, with why it usually is so."""
        each = (f"{source} = {_brief(value)}" for source, value in self.values)
        seen = ", ".join(dict.fromkeys(each))
        return "\n".join([f"expected: {expected}", *filter(None, [seen and f"seen: {seen}"]), BUSY])


class Explained(ast.NodeTransformer):
    """Gives each assert without a message one; everything is evaluated as before, and once."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt] | ast.Assert:
        """Return the assert with a message, between what that needs."""
        if node.msg:
            return node
        expected = ast.unparse(node.test)
        seen = f"_seen = __import__({__name__!r}, fromlist=['Seen']).Seen()"
        before, after = ast.parse(f"{seen}\ndel _seen").body
        node.msg = ast.parse(f"_seen.told({expected!r})", mode="eval").body
        for new in (before, node.msg, after):
            for part in ast.walk(new):
                ast.copy_location(part, node)
        node.test = _watched(node.test)
        return [before, node, after]


def _watched(test: ast.expr) -> ast.expr:
    """Have what a test compares remembered; `and`, `or` and chains stop where they did."""
    match test:
        case ast.BoolOp():
            test.values = [_watched(value) for value in test.values]
        case ast.Compare():
            test.left = _kept(test.left)
            test.comparators = [_kept(one) for one in test.comparators]
    return test


def _kept(operand: ast.expr) -> ast.expr:
    """Return the call of `_seen` that remembers an operand, a constant as it is."""
    try:
        ast.literal_eval(operand)
        return operand
    except (ValueError, TypeError, SyntaxError):
        name = ast.Name("_seen", ast.Load())
        call = ast.Call(name, [ast.Constant(ast.unparse(operand)), operand], [])
        for part in (call, name, call.args[0]):
            ast.copy_location(part, operand)
        return call


def _brief(value: object) -> str:
    """Return a value as a short line; numbers as they are written, NumPy's too."""
    told = str(value) if isinstance(value, numbers.Number) else _short.repr(value)
    return " ".join(told.split())
