"""What a read through a cache costs: the theory that is drawn as lines under measured points."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

RATES = tuple(np.sort([*np.linspace(0, 1, 101), 0.95 - 1e-6]))  # each per cent, and just before the p95 falls


def mean_cost(hit_rate: float, get: float, load: float, store: float = 0.0) -> float:
    """Return the mean time of a read: every read pays the GET, a miss pays the load and the store as well.

    >>> mean_cost(0.75, get=1, load=10, store=2)
    4.0
    """
    return get + (1 - hit_rate) * (load + store)


def read_costs(get: float, load: float, store: float = 0.0, hit_rates: Sequence[float] = RATES) -> pd.DataFrame:
    """Return the tidy frame (cost, hit_rate, seconds, source) with the "mean" and the "p95" of a read, and that of "no cache".

    get, load, store: seconds that a GET, a load from the origin and the store after a miss take; each takes always the same
    time, so a read is either a hit or a miss, and the 95th percentile is a miss's time until at most 5 % of the reads miss.
    source is "model" in each row.
    """
    miss = get + load + store
    rows = [("mean", rate, mean_cost(rate, get, load, store)) for rate in hit_rates]
    rows += [("p95", rate, get if rate >= 0.95 else miss) for rate in hit_rates]
    rows += [("no cache", rate, load) for rate in hit_rates]
    return pd.DataFrame(rows, columns=["cost", "hit_rate", "seconds"]).assign(source="model")
