"""The promises, each a sentence and the function that tries it, and the judge.

    contract.check(MyCache)        a table: promise, held, seen
    pytest --cache module:MyCache  the same from a shell

A cache is built as ``MyCache(url, load, ttl, missing_ttl)``: the server's URL, a function of an id
that returns a str or None, and two lifetimes in seconds. It has ``get(id)`` and ``invalidate(id)``,
both plain or both async; if they are async, ``load`` is, too. Every promise is tried on a server of
its own, which the suite starts, fills, freezes and kills, and in a process of its own.

Three more kinds have promises, each told by what it is built with, or by its work:

    refresh-ahead   MyCache(url, load, ttl, grace)         get(id), invalidate(id)
    write-through   MyWrites(url, load, store, ttl)        get(id), put(id, value)
    write-behind    MyWrites(url, database, max_length, claim_after)
                                                           put(id, value), work(), get(id)

``store(id, value)`` commits one row; who writes around the cache is judged as write-through.
``database`` is a `UserDatabase`, in a SQLite file. ``work()`` applies one batch of what waits and
returns; it may wait a second for something to come, and may raise: then it is called again. It is
called in processes of their own, which are killed and stopped around their COMMIT and their XACK.
``claim_after`` is how many seconds what a dead worker held may rest. A value of None deletes the
row. ``get`` may be missing there: then nothing that is read is judged.
"""

import inspect
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import pandas as pd

from cachelab._extras import need
from cachelab.lab.contract.child import Child, Say
from cachelab.lab.contract.kinds import AheadBench, WritesBench
from cachelab.lab.contract.trial import PATIENCE, Bench, Broken, NotApplicable, bench
from cachelab.lab.contract.workers import BehindBench
from cachelab.server.cluster import Cluster
from cachelab.server.sentinel import Sentinel

Trial = Callable[[Any], None]  # of a `Bench`, or of the bench of its kind

PROMISES: dict[str, Trial] = {}  # of a cache-aside
NOT_APPLICABLE = "not applicable"  # what is seen where a promise is not for this kind of cache

_BENCHES: dict[str, type[Bench]] = {
    "cache-aside": Bench,
    "refresh-ahead": AheadBench,
    "write-through": WritesBench,
    "write-behind": BehindBench,
}
_by_kind: dict[str, dict[str, Trial]] = {kind: {} for kind in _BENCHES} | {"cache-aside": PROMISES}
# arguments that tell a kind
_TELLS = {"store": "write-through", "grace": "refresh-ahead", "database": "write-behind"}


def promise(sentence: str, kind: str = "cache-aside") -> Callable[[Trial], Trial]:
    """Enter a function among the promises of a kind, as the trial of what a sentence promises.

    Args:
        sentence: What is promised, as tables show it.
        kind: Of what: "cache-aside", "refresh-ahead", "write-through" or "write-behind".

    Returns:
        A decorator. The function gets a `Bench` and raises `Broken` (by `expect` and `same`)
        where the promise is not held; its name is the promise's name in tests.
    """

    def note(trial: Trial) -> Trial:
        _by_kind[kind][sentence] = trial
        return trial

    return note


def promises_of(kind: str) -> Mapping[str, Trial]:
    """Return the promises of a kind, its own first: a refresh-ahead keeps a cache-aside's, too."""
    if kind not in _by_kind:
        raise ValueError(f"kind must be one of {', '.join(_by_kind)}, not {kind!r}")
    inherited = PROMISES if kind == "refresh-ahead" else {}
    return MappingProxyType(_by_kind[kind] | inherited)


def kind_of(cache: type) -> str:
    """Tell the kind of a class by its work, or by what it is built with."""
    if hasattr(cache, "work"):
        return "write-behind"
    try:
        names = inspect.signature(cache).parameters
    except ValueError:  # it is built in C
        names = {}
    return next((_TELLS[name] for name in names if name in _TELLS), "cache-aside")


def check(
    cache: type, only: str = "", on: Cluster | Sentinel | None = None, kind: str = ""
) -> pd.DataFrame:
    """Try promises on a cache; a cache-aside's take about forty seconds, on a set about sixty.

    Args:
        cache: A class that is built as its kind is (see the module's text), a cache-aside as
            ``cache(url, load, ttl, missing_ttl)``.
        only: A part of the sentences to try, or the name of one promise's function.
        on: A running practice set to try them on instead, started with links; its nodes are
            killed, frozen and filled, and it is whole again before each promise. They are tried in
            this very process then, for a set obeys no other.
        kind: Of what it is judged as: "cache-aside", "refresh-ahead", "write-through" or
            "write-behind"; by default what `kind_of` tells.

    Returns:
        DataFrame(promise, held, seen). seen: what was seen instead, "" for a promise that is held.
        Of one that is not for this kind of cache, it begins with "not applicable" (the constant
        NOT_APPLICABLE), and held is True, for nothing is broken: leave those rows out of counts.

    Raises:
        ValueError: No kind has this name, or no promise of it has this name or these words.
    """
    kind = kind or kind_of(cache)
    promises = promises_of(kind)
    chosen = [each for each, trial in promises.items() if only in each or only == trial.__name__]
    if not chosen:
        raise ValueError(
            f"only must be part of a promise's sentence or the name of its function, not {only!r}: "
            f"contract.promises_of({kind!r}) has them all"
        )
    rows = []
    for sentence in chosen:
        seen = verdict(cache, sentence, on=on, kind=kind)
        held = seen is None or seen.startswith(NOT_APPLICABLE)
        rows.append({"promise": sentence, "held": held, "seen": seen or ""})
    return pd.DataFrame(rows, columns=["promise", "held", "seen"])


def verdict(
    cache: type,
    sentence: str,
    patience: float = PATIENCE,
    on: Cluster | Sentinel | None = None,
    kind: str = "",
) -> str | None:
    """Try one promise on a cache, in a process of its own.

    Args:
        cache: A class that is built as its kind is.
        sentence: The promise, one of ``promises_of(kind)``.
        patience: Seconds until a call that does not come back counts as hung; the whole trial
            gets three times that.
        on: A running practice set to try it on, in this process.
        kind: Of what it is judged as; by default what `kind_of` tells.

    Returns:
        None if the promise is held; else what was seen instead, or "not applicable to ...".
    """
    kind = kind or kind_of(cache)
    if kind == "write-behind":
        need("contract", "database")
        import sqlalchemy  # noqa: F401  once, and not in each process of its own

    seen = partial(_seen, cache, kind, promises_of(kind)[sentence], patience)
    if on:
        with warnings.catch_warnings():
            _quiet()
            return seen(on)
    with (
        TemporaryDirectory(prefix="cachelab-contract-", ignore_cleanup_errors=True) as folder,
        Child(partial(_try, seen, folder)) as trial,
    ):
        try:
            return json.loads(trial.hear(3 * patience))
        except TimeoutError:
            return f"the trial did not end within {3 * patience:g} s"
        except EOFError:
            return f"the process has ended amid the trial, with status {trial.kill()}"


def _try(seen: Callable[[], str | None], folder: str, say: Say) -> None:
    os.setsid()  # what it forks is killed with it
    tempfile.tempdir = folder  # what it leaves there is removed with it
    _quiet()
    say(json.dumps(seen()))


def _quiet() -> None:
    warnings.resetwarnings()  # a verdict does not depend on the filters of who asks
    warnings.simplefilter("ignore", ResourceWarning)


def _seen(
    cache: type,
    kind: str,
    trial: Trial,
    patience: float,
    on: Cluster | Sentinel | None = None,
) -> str | None:
    """Return None if a promise is held, else what was seen instead."""
    try:
        with bench(cache, patience, on, _BENCHES[kind]) as place:
            trial(place)
    except Broken as broken:
        return str(broken)
    except NotApplicable as kind:
        return f"{NOT_APPLICABLE} to {kind}"
    except TimeoutError as error:
        return str(error) or f"a call did not come back within {patience:g} s"
    except BaseException as error:  # SystemExit too: the cache is a stranger's
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return None
