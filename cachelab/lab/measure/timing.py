"""Fair timing: variants take turns in rounds, the collector waits, a ratio has its interval.

Seconds everywhere.
"""

import gc
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from cachelab._check import choice, whole

RESAMPLES = 2000
# Rounds: an interval from resampling fewer holds the truth three times in four, not nineteen in
# twenty.
FEW = 5


def compare(
    variants: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    warmup: int = 1,
    before: Callable[[], object] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Time callables side by side, in rounds that call every variant once.

    Interleaving spreads whatever the machine does meanwhile over all variants alike (Kalibera and
    Jones, 2013). An exception comes through with a note that names the variant.

    Args:
        variants: {name: what is timed}.
        rounds: How many are recorded.
        warmup: How many run first and are not recorded.
        before: What runs untimed before each call.
        seed: Of the order in each round.
        progress: Show a bar meanwhile, which moves between the rounds.

    Returns:
        The tidy frame (variant, round, seconds), ``rounds`` rows a variant.
    """
    rows = []
    for turn, name, call in _turns(variants, rounds, warmup, seed, progress):
        with _named(name), collector_off():
            if before is not None:
                before()
            began = perf_counter()
            outcome = call()
            rows.append((name, turn, perf_counter() - began))
            _refuse_awaitable(outcome, "compare_async")
    return _frame(rows, variants)


async def compare_async(
    variants: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    warmup: int = 1,
    before: Callable[[], object] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Time callables side by side as `compare` does.

    What a variant or ``before`` returns is awaited if it can be.
    """
    rows = []
    for turn, name, call in _turns(variants, rounds, warmup, seed, progress):
        with _named(name), collector_off():
            if before is not None and inspect.isawaitable(ready := before()):
                await ready
            began = perf_counter()
            if inspect.isawaitable(outcome := call()):
                await outcome
            rows.append((name, turn, perf_counter() - began))
    return _frame(rows, variants)


def summary(df: pd.DataFrame, baseline: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Return one row a variant: n, p50, p95, p99, max in seconds, and ratio, ratio_low, ratio_high.

    ratio = the variant's median / the baseline's median: 0.2 takes a fifth of the baseline's time
    (5 times faster). ratio_low and ratio_high are the 95 % interval of that ratio, of 2,000
    resamples of whole rounds, so that what slowed a round down counts for all its variants alike.
    Of two to four rounds it is Student's t of the logarithms of their ratios; one has none: nan.

    Args:
        df: What `compare` returned.
        baseline: The first variant unless named.
        seed: Of the resamples.
    """
    names = list(dict.fromkeys(df["variant"]))
    named = names[0] if baseline is None else baseline
    against = names.index(choice("baseline", named, tuple(names)))
    times = df.pivot(index="round", columns="variant", values="seconds")[names].to_numpy()
    if np.isnan(times).any():
        raise ValueError(
            "every variant needs one time in every round: the interval pairs them by round"
        )
    rng = np.random.default_rng(whole("seed", seed, least=0))
    middle = np.median(times, axis=0)
    if len(times) == 1:
        again = np.full((1, len(names)), np.nan)
    elif len(times) < FEW:
        spread = np.log(times / times[:, [against]]).std(axis=0, ddof=1) / len(times) ** 0.5
        drawn = rng.standard_t(len(times) - 1, RESAMPLES)
        again = middle / middle[against] * np.exp(np.outer(drawn, spread))
    else:
        medians = np.median(times[rng.integers(len(times), size=(RESAMPLES, len(times)))], axis=1)
        again = medians / medians[:, [against]]
    low, high = np.percentile(again, [2.5, 97.5], axis=0)
    p50, p95, p99 = np.percentile(times, [50, 95, 99], axis=0)
    columns = {"n": len(times), "p50": p50, "p95": p95, "p99": p99, "max": times.max(axis=0)}
    columns |= {"ratio": p50 / p50[against], "ratio_low": low, "ratio_high": high}
    return pd.DataFrame(columns, index=pd.Index(names, name="variant"))


def sample(call: Callable[[], object], n: int, warmup: int = 10, repeat: int = 1) -> np.ndarray:
    """Return the durations in seconds of ``n`` calls one after the other.

    Args:
        call: What is timed.
        n: How many are recorded.
        warmup: How many run first and are not recorded.
        repeat: How many are timed together, their mean being one duration: for calls well below a
            microsecond, where the clock itself costs as much.
    """
    n, warmup = whole("n", n, least=1), whole("warmup", warmup, least=0)
    repeat = whole("repeat", repeat, least=1)
    for _ in range(warmup):
        _refuse_awaitable(call(), "sample_async")
    marks = np.empty((n, 2))
    turns = range(repeat)
    with collector_off():
        for i in range(n):
            began = perf_counter()
            for _ in turns:
                call()
            marks[i] = began, perf_counter()
    return (marks[:, 1] - marks[:, 0]) / repeat


async def sample_async(
    call: Callable[[], Awaitable[object]], n: int, warmup: int = 10
) -> np.ndarray:
    """Return the durations in seconds of ``n`` awaited calls, after ``warmup`` unrecorded ones."""
    n, warmup = whole("n", n, least=1), whole("warmup", warmup, least=0)
    for _ in range(warmup):
        await call()
    marks = np.empty((n, 2))
    with collector_off():
        for i in range(n):
            began = perf_counter()
            await call()
            marks[i] = began, perf_counter()
    return marks[:, 1] - marks[:, 0]


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector from running inside, as amid a measurement."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _turns(
    variants: Mapping, rounds: int, warmup: int, seed: int, progress: bool
) -> Iterator[tuple[int, str, Callable]]:
    """Check the arguments, then yield (round, name, callable) in the order of the calls.

    Warm-up rounds count below 0.
    """
    rounds, warmup = whole("rounds", rounds, least=1), whole("warmup", warmup, least=0)
    shuffle = np.random.default_rng(whole("seed", seed, least=0))
    if not variants or not all(callable(call) for call in variants.values()):
        raise TypeError(f"variants must map at least one name to a callable, not {variants!r}")
    names = list(variants)
    for turn in tqdm(range(-warmup, rounds), unit=" rounds", leave=False, disable=not progress):
        for i in shuffle.permutation(len(names)):
            yield turn, names[i], variants[names[i]]


def _frame(rows: list[tuple[str, int, float]], variants: Mapping) -> pd.DataFrame:
    """Drop the warm-up and give each round its variants in the order of ``variants``."""
    order = list(variants)
    kept = [row for row in rows if row[1] >= 0]
    kept.sort(key=lambda row: (row[1], order.index(row[0])))
    return pd.DataFrame(kept, columns=["variant", "round", "seconds"])


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"while timing the variant {name!r}")
        raise


def _refuse_awaitable(outcome: object, instead: str) -> None:
    """Raise if a sync measurement was handed an async callable.

    It has timed the making of a coroutine, not its run.
    """
    if inspect.isawaitable(outcome):
        if inspect.iscoroutine(outcome):
            outcome.close()
        raise TypeError(f"the call returned an awaitable: await {instead}(...) instead")
