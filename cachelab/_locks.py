"""A lock that a signal handler, a finaliser and a forked child may meet."""

import os
import threading
import weakref
from typing import Any

_made: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> "threading.RLock":
    """Return a re-entrant lock that is free in a forked child, whoever held it in the parent.

    Re-entrant: a handler that interrupts the holder comes in as well, so what it guards must be
    whole at every moment.
    """
    made = threading.RLock()
    _made.add(made)
    return made


def _free_all() -> None:
    for held in list(_made):
        held._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
