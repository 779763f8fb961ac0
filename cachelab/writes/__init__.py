"""Writing beside a cache: straight through it, around it, behind it, and refreshing it ahead.

Each name is imported when it is first asked for; the worker needs the extra `database`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cachelab.errors import WritesFull, WriteUncertain

if TYPE_CHECKING:
    from cachelab.writes.ahead import AsyncRefreshAhead, RefreshAhead
    from cachelab.writes.behind import AsyncWriteBehind, WriteBehind
    from cachelab.writes.through import (
        AsyncWriteAround,
        AsyncWriteThrough,
        WriteAround,
        WriteThrough,
    )
    from cachelab.writes.worker import Worker

__all__ = [
    "AsyncRefreshAhead",
    "AsyncWriteAround",
    "AsyncWriteBehind",
    "AsyncWriteThrough",
    "RefreshAhead",
    "Worker",
    "WriteAround",
    "WriteBehind",
    "WriteThrough",
    "WriteUncertain",
    "WritesFull",
]

_LAZY = {
    "AsyncRefreshAhead": "ahead",
    "AsyncWriteAround": "through",
    "AsyncWriteBehind": "behind",
    "AsyncWriteThrough": "through",
    "RefreshAhead": "ahead",
    "Worker": "worker",
    "WriteAround": "through",
    "WriteBehind": "behind",
    "WriteThrough": "through",
}

if not TYPE_CHECKING:  # a type checker would take any name of a module that has __getattr__

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_LAZY[name]}")
        return globals().setdefault(name, getattr(module, name))

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})
