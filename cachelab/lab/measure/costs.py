"""What a read through a cache costs: the theory that is drawn as lines under measured points."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cachelab import _check

# Each per cent, and just before the p95 falls.
RATES = tuple(np.sort([*np.linspace(0, 1, 101), 0.95 - 1e-6]))


def mean_cost(hit_rate: float, get: float, load: float, store: float = 0.0) -> float:
    """Return the mean time of a read: all pay the GET, a miss pays the load and the store as well.

    >>> mean_cost(0.75, get=1, load=10, store=2)
    4.0
    """
    return get + (1 - hit_rate) * (load + store)


def read_costs(
    get: float, load: float, store: float = 0.0, hit_rates: Sequence[float] = RATES
) -> pd.DataFrame:
    """Return what a read costs on average and at the 95th percentile, and without a cache.

    Each step takes always the same time, so a read is either a hit or a miss, and the 95th
    percentile is a miss's time until at most 5 % of the reads miss.

    Args:
        get: Seconds that a GET takes.
        load: Seconds that a load from the origin takes.
        store: Seconds that the store after a miss takes.
        hit_rates: From 0 to 1.

    Returns:
        The tidy frame (cost, hit_rate, seconds, source). cost: "mean", "p95", "no cache"; source
        is "model" in each row.
    """
    get, load = _check.number("get", get), _check.number("load", load)
    store = _check.number("store", store)
    rates = [_check.number("hit_rate", rate, high=1) for rate in hit_rates]
    rows = [("mean", rate, mean_cost(rate, get, load, store)) for rate in rates]
    rows += [("p95", rate, get if rate >= 0.95 else get + load + store) for rate in rates]
    rows += [("no cache", rate, load) for rate in rates]
    return pd.DataFrame(rows, columns=["cost", "hit_rate", "seconds"]).assign(source="model")
