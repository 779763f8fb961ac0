"""The dashboard: all panels on a page of their own, for the projector.

``python -m cachelab.lab.panels.dashboard`` serves it. The page is page.ipynb without its code.
Whoever opens it gets a kernel of their own, which ends when they leave.
"""

from math import ceil
from pathlib import Path

import pandas as pd

from cachelab.lab.notebooks import SCALES


def recorded(folder: Path = SCALES["full"]) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return what `widgets.batch_and_round_trip` takes, from notebook 05's chart in ``folder``.

    The lines of its model tell the rest: they rise with the number of trips, and begin at the work
    of all commands.
    """
    df = pd.read_csv(folder / "05_round_trip.csv")
    df = df.rename(columns={"variant": "method", "p50": "seconds"})
    trips, work = {}, {}
    for method, line in df[df["source"] == "model"].groupby("method"):
        (near, less), (far, more) = line[["trip_ms", "seconds"]].iloc[[0, -1]].to_numpy()
        trips[method] = round(1000 * (more - less) / (far - near))
        work[method] = less - trips[method] * near / 1000
    count = trips["one by one"]
    measured = df[df["source"] == "measured"].assign(count=count)
    measured["batch"] = [ceil(count / trips[method]) for method in measured["method"]]
    return measured, {method: seconds / count for method, seconds in work.items()}
