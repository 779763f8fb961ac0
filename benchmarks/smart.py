"""Next-key prefetch by a learned model, in the table of the models that only count.

    make setup EXTRAS=benchmarks
    .venv/bin/python benchmarks/smart.py                     five minutes or so
    .venv/bin/python benchmarks/smart.py --reads 2000 --seeds 3 --trace my_trace.csv

The candidates are what has followed the last read, or the last two, most often, and what is read
most. A classifier of scikit-learn says of each how likely it is next: from how often it followed
each context and how often that came, how often and how long ago it was read, in this stream and at
all. It is fitted on all reads so far whenever they have doubled, and asked without the checks that
take scikit-learn's own predict_proba a hundred times as long. What is likelier than a half is
prefetched, as the counting models' guess is, under the same budget.

The first table is that of `prediction.verdicts`; the second tells what the library takes: megabytes
on the disk, in memory, seconds to import, and what the models gain beyond counting, paired by seed.
"""

import argparse
import importlib.metadata
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from functools import partial

import numpy as np
import pandas as pd
import psutil

from cachelab.lab.hits import prediction, workload
from cachelab.smart import Markov

BROUGHT = ("scikit-learn", "scipy", "joblib", "threadpoolctl", "narwhals")
Likely = Callable[[list[list[float]]], np.ndarray]  # of candidates, by their features
Fit = Callable[[list[list[float]], list[bool]], Likely]
FIRST = 250  # reads before the first fit
SHOWN = ["points", "points_low", "points_high", "loads_percent", "us_a_read", "beyond_control"]


class Learned:
    """Predict the next id by a classifier over candidates.

    Args:
        fit: Takes rows of features, and whether each candidate came; returns how likely others are.
        confidence: A candidate is predicted if it is likelier than this.
    """

    def __init__(self, fit: Fit, confidence: float = 0.5):
        self._fit_on, self._confidence = fit, confidence
        self._likely: Likely | None = None
        self._after: dict[tuple, Counter] = defaultdict(Counter)
        self._times: Counter = Counter()  # of each context
        self._read: Counter = Counter()  # of each id
        self._last: dict[Hashable, tuple] = {}  # reads of each stream
        self._seen: dict[tuple, int] = {}  # when an id was read last, at all and in each stream
        self._offered: dict[Hashable, dict] = {}  # candidates of each stream, and their features
        self._rows: list[list[float]] = []
        self._came: list[bool] = []
        self._now, self._next_fit = 0, FIRST
        self._popular = None

    def next(self, id, stream):
        """Take note of a read; return the id that is expected next, None for none."""
        for candidate, row in self._offered.pop(stream, {}).items():
            self._rows.append(row)
            self._came.append(candidate == id)
        self._count(id, stream)
        if self._now >= self._next_fit:
            self._fit()
        offered = {one: self._row(one, stream) for one in self._candidates(stream)}
        self._offered[stream] = offered
        if self._likely is None or not offered:
            return None
        likely = self._likely(list(offered.values()))
        best = int(likely.argmax())
        return list(offered)[best] if likely[best] > self._confidence else None

    def _count(self, id, stream) -> None:
        self._now += 1
        last = self._last.get(stream, ())
        for length in range(1, len(last) + 1):
            self._after[last[-length:]][id] += 1
            self._times[last[-length:]] += 1
        self._read[id] += 1
        if self._popular is None or self._read[id] > self._read[self._popular]:
            self._popular = id
        self._last[stream] = (*last, id)[-2:]
        self._seen[(id,)] = self._seen[(stream, id)] = self._now

    def _candidates(self, stream) -> set:
        last = self._last[stream]
        found = {self._popular}
        for length in range(1, len(last) + 1):
            found.update(one for one, _ in self._after[last[-length:]].most_common(2))
        return found - {last[-1]}

    def _row(self, one, stream) -> list[float]:
        last, row = self._last[stream], []
        for length in (1, 2):
            context = last[-length:]
            times, followed = self._times[context], self._after[context][one]
            row += [followed / (times + 1), math.log1p(times), math.log1p(followed)]
        row.append(self._read[one] / self._now)
        row += [math.log1p(self._now - self._seen.get(at, 0)) for at in ((one,), (stream, one))]
        return row

    def _fit(self) -> None:
        self._next_fit *= 2
        if len(set(self._came)) == 2:
            self._likely = self._fit_on(self._rows, self._came)


def logistic(rows: list[list[float]], came: list[bool]) -> Likely:
    from sklearn.linear_model import LogisticRegression

    table = np.array(rows)
    mean, spread = table.mean(axis=0), table.std(axis=0) + 1e-9
    model = LogisticRegression().fit((table - mean) / spread, came)
    weights = model.coef_[0] / spread
    offset = float(model.intercept_[0] - weights @ mean)
    return lambda rows: 1 / (1 + np.exp(-(np.array(rows) @ weights + offset)))


def forest(rows: list[list[float]], came: list[bool]) -> Likely:
    from sklearn.ensemble import RandomForestClassifier

    table = np.array(rows, np.float32)
    made = RandomForestClassifier(8, min_samples_leaf=20, random_state=0).fit(table, came)
    trees = [one.tree_ for one in made.estimators_]

    def likely(rows: list[list[float]]) -> np.ndarray:
        asked = np.array(rows, np.float32)
        shares = [(found := tree.predict(asked))[:, 1] / found.sum(axis=1) for tree in trees]
        return np.mean(shares, axis=0)

    return likely


MODELS = {
    "counts, order 1": lambda: Markov(1),
    "counts, order 2": lambda: Markov(2),
    "logistic regression": partial(Learned, logistic),
    "random forest": partial(Learned, forest),
}


def price() -> dict[str, float]:
    """Return what scikit-learn and what it brings take: MB on the disk and in memory, seconds."""
    files = [file for name in BROUGHT for file in importlib.metadata.files(name) or ()]
    sizes = [path.stat().st_size for file in files if (path := file.locate()).exists()]
    process = psutil.Process()
    before, began = process.memory_info().rss, time.perf_counter()
    logistic([[0.0], [1.0]], [False, True])
    forest([[0.0], [1.0]], [False, True])
    seconds = time.perf_counter() - began
    memory = (process.memory_info().rss - before) / 1e6
    return {"disk_mb": sum(sizes) / 1e6, "memory_mb": memory, "import_seconds": seconds}


def beyond_counting(trials: pd.DataFrame) -> pd.DataFrame:
    """Return what each model gains beyond counting two reads, in hits of 100 reads, by trace."""
    made = prediction.gains(trials)
    points = made[~made["is_control"]].set_index(["trace", "seed", "technique"])["points"].unstack()
    beyond = points.sub(points["counts, order 2"], axis=0)[["logistic regression", "random forest"]]
    rows = [
        {"trace": trace, "model": model} | prediction.interval("beyond_counts", part[model])
        for trace, part in beyond.groupby("trace", sort=False)
        for model in beyond
    ]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reads", type=int, default=4000, help="in each case")
    parser.add_argument("--seeds", type=int, default=10, help="cases of each trace, ten at most")
    parser.add_argument("--trace", help="a CSV of your own, one key a line")
    args = parser.parse_args()
    took = price()
    own = workload.from_csv(args.trace) if args.trace else None
    techniques = {name: prediction.prefetching(make) for name, make in MODELS.items()}
    trials = prediction.trials(
        prediction.traces(args.reads, own), techniques, seeds=range(args.seeds)
    )
    table = prediction.verdicts(trials)[["trace", "technique", *SHOWN, "verdict"]]
    print(table.round(2).to_string(index=False))
    print("\n" + beyond_counting(trials).round(2).to_string(index=False))
    print("\n" + ", ".join(f"{name} {value:.1f}" for name, value in took.items()))


if __name__ == "__main__":
    main()
