"""The promises, each a sentence and the function that tries it, and the judge.

    contract.check(MyCache)        a table: promise, held, seen
    pytest --cache module:MyCache  the same from a shell

A cache is built as ``MyCache(url, load, ttl, missing_ttl)``: the server's URL, a function of an id
that returns a str or None, and two lifetimes in seconds. It has ``get(id)`` and ``invalidate(id)``,
both plain or both async; if they are async, ``load`` is, too. Every promise is tried on a server of
its own, which the suite starts, fills, freezes and kills, and in a process of its own.
"""

import json
import os
import warnings
from collections.abc import Callable
from functools import partial

import pandas as pd

from cachelab.lab.contract.child import Child, Say
from cachelab.lab.contract.trial import PATIENCE, Bench, Broken, NotApplicable, bench
from cachelab.server.cluster import Cluster
from cachelab.server.sentinel import Sentinel

Trial = Callable[[Bench], None]

PROMISES: dict[str, Trial] = {}
NOT_APPLICABLE = "not applicable"  # what is seen where a promise is not for this kind of cache


def promise(sentence: str) -> Callable[[Trial], Trial]:
    """Enter a function in `PROMISES`, as the trial of what a sentence promises.

    Args:
        sentence: What is promised, as tables show it.

    Returns:
        A decorator. The function gets a `Bench` and raises `Broken` (by `expect` and `same`)
        where the promise is not held; its name is the promise's name in tests.
    """

    def note(trial: Trial) -> Trial:
        PROMISES[sentence] = trial
        return trial

    return note


def check(cache: type, only: str = "", on: Cluster | Sentinel | None = None) -> pd.DataFrame:
    """Try promises on a cache; all of them take about forty seconds, on a set about sixty.

    Args:
        cache: A class that is built as ``cache(url, load, ttl, missing_ttl)``.
        only: A part of the sentences to try, or the name of one promise's function.
        on: A running practice set to try them on instead, started with links; its nodes are
            killed, frozen and filled, and it is whole again before each promise. They are tried in
            this very process then, for a set obeys no other.

    Returns:
        DataFrame(promise, held, seen). seen: what was seen instead, "" for a promise that is held.
        Of one that is not for this kind of cache, it begins with "not applicable" (the constant
        NOT_APPLICABLE), and held is True, for nothing is broken: leave those rows out of counts.

    Raises:
        ValueError: No promise has this name or these words.
    """
    chosen = [each for each, trial in PROMISES.items() if only in each or only == trial.__name__]
    if not chosen:
        raise ValueError(
            f"only must be part of a promise's sentence or the name of its function, not {only!r}: "
            "contract.PROMISES has them all"
        )
    rows = []
    for sentence in chosen:
        seen = verdict(cache, sentence, on=on)
        held = seen is None or seen.startswith(NOT_APPLICABLE)
        rows.append({"promise": sentence, "held": held, "seen": seen or ""})
    return pd.DataFrame(rows, columns=["promise", "held", "seen"])


def verdict(
    cache: type, sentence: str, patience: float = PATIENCE, on: Cluster | Sentinel | None = None
) -> str | None:
    """Try one promise on a cache, in a process of its own.

    Args:
        cache: A class that is built as ``cache(url, load, ttl, missing_ttl)``.
        sentence: The promise, one of `PROMISES`.
        patience: Seconds until a call that does not come back counts as hung; the whole trial
            gets three times that.
        on: A running practice set to try it on, in this process.

    Returns:
        None if the promise is held; else what was seen instead, or "not applicable to ...".
    """
    if on:
        with warnings.catch_warnings():
            _quiet()
            return _seen(cache, PROMISES[sentence], patience, on)
    with Child(partial(_try, cache, PROMISES[sentence], patience)) as trial:
        try:
            return json.loads(trial.hear(3 * patience))
        except TimeoutError:
            return f"the trial did not end within {3 * patience:g} s"
        except EOFError:
            return f"the process has ended amid the trial, with status {trial.kill()}"


def _try(cache: type, trial: Trial, patience: float, say: Say) -> None:
    os.setsid()  # what it forks is killed with it
    _quiet()
    say(json.dumps(_seen(cache, trial, patience)))


def _quiet() -> None:
    warnings.resetwarnings()  # a verdict does not depend on the filters of who asks
    warnings.simplefilter("ignore", ResourceWarning)


def _seen(
    cache: type, trial: Trial, patience: float, on: Cluster | Sentinel | None = None
) -> str | None:
    """Return None if a promise is held, else what was seen instead."""
    try:
        with bench(cache, patience, on) as place:
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
