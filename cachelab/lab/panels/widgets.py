"""Panels to play with: sliders above a picture, on the functions that the charts before used."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from math import ceil

import ipywidgets
import pandas as pd
from matplotlib.axes import Axes
from tqdm.auto import tqdm

from cachelab import _check
from cachelab.lab import claims
from cachelab.lab.draw import charts
from cachelab.lab.draw.units import written
from cachelab.lab.faults.applications import token_bucket
from cachelab.lab.faults.stampede import CONNECTIONS, TECHNIQUES, TTL, simulate, under_way
from cachelab.lab.hits import prediction
from cachelab.lab.hits.policies import POLICIES, hit_rates
from cachelab.lab.hits.theory import hit_rate_lines, ttl_trade
from cachelab.lab.hits.workload import popularity, zipf
from cachelab.lab.measure.costs import read_costs
from cachelab.lab.measure.timing import collector_off
from cachelab.lab.panels.buttons import (
    ask,
    ask_a_user,
    break_a_node,
    break_the_server,
    kill_the_worker,
    watch_a_server,
)
from cachelab.lab.panels.display import OPTIONS, Picture
from cachelab.lab.panels.stills import Panel
from cachelab.lab.panels.visits import visit_a_patient
from cachelab.smart import Markov

__all__ = [
    "ask",
    "ask_a_user",
    "batch_and_round_trip",
    "batch_costs",
    "batch_seconds",
    "break_a_node",
    "break_the_server",
    "claim_and_evidence",
    "cost_of_a_hit",
    "hit_rate_and_capacity",
    "how_big_a_cache",
    "kill_the_worker",
    "limit_over_time",
    "panel",
    "prefetch_and_price",
    "prefetch_gains",
    "stampede",
    "ttl_and_staleness",
    "visit_a_patient",
    "watch_a_server",
]


def panel(draw: Callable[..., Axes], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Return controls above the chart that ``draw(**values)`` makes.

    It is drawn again when a control is let go; the picture keeps its place and size, and carries
    its alt text.

    Args:
        draw: A function with one argument for each control, which returns Axes of
            `cachelab.lab.draw.charts` from data that are already there (within 100 ms), and never
            asks Redis.
        controls: The sliders and choices, by the argument that each gives.
    """
    picture = Picture()

    def drawn(**other: object) -> Axes:
        return draw(**{name: control.value for name, control in controls.items()} | other)

    def show(_: object = None) -> None:
        # Every twentieth move a full collection would walk over all that is loaded, for 0.1 s. What
        # a drawing leaves is young, and collected after it.
        with collector_off():
            picture.show(drawn)

    for control in controls.values():
        control.continuous_update = False
        control.layout = {"width": "100%", "max_width": "810px"}  # as wide as the picture
        control.style.description_width = "14em"
        control.observe(show, "value")
        if isinstance(control, ipywidgets.SelectionSlider):
            control.add_class(OPTIONS)
    picture.make_room(
        functools.partial(drawn, **{name: end})
        for name in controls
        for end in _ends(controls[name])
    )
    show()
    return Panel([*controls.values(), picture])


def cost_of_a_hit(
    get: float = 0.0001, load: float = 0.002, hit_rate: float = 0.9
) -> ipywidgets.VBox:
    """Return sliders above the mean and the p95 of a read by `read_costs`.

    The store after a miss takes as long as the GET; the points are the chosen hit rate's.

    Args:
        get: Seconds of a GET, where its slider begins.
        load: Seconds of a load, where its slider begins.
        hit_rate: Where its slider begins.
    """
    get = _check.number("get", get, above=0)
    load = _check.number("load", load, above=0)
    hit_rate = _check.number("hit_rate", hit_rate, high=1)

    def draw(percent: float, get_ms: float, load_ms: float) -> Axes:
        hit_rate, get, load = percent / 100, get_ms / 1000, load_ms / 1000
        chosen = read_costs(get, load, get, [hit_rate]).assign(source="chosen")
        mean, p95, none = (written(seconds, "s") for seconds in chosen["seconds"])
        title = f"{written(hit_rate, '%')} hits: mean {mean}, p95 {p95}; no cache {none}"
        return charts.curve(
            pd.concat([read_costs(get, load, get), chosen]),
            "hit_rate",
            "seconds",
            by="cost",
            title=title,
            alt=f"{title}. The mean falls in a straight line from a miss to a hit, "
            "the p95 is a miss's until 95 % hits.",
            logy=False,
            roles={"mean": "cache", "no cache": "database"},
            note="lines: model",
            ylabel="time of a read",
        )

    times = {"base": 10, "min": -2, "max": 2, "step": 0.02, "readout_format": ".2f"}
    return panel(
        draw,
        percent=ipywidgets.FloatSlider(
            100 * hit_rate, min=0, max=100, step=1, description="hit rate (%)", readout_format=".0f"
        ),
        get_ms=ipywidgets.FloatLogSlider(1000 * get, description="a GET, and a SET (ms)", **times),
        load_ms=ipywidgets.FloatLogSlider(1000 * load, description="a load (ms)", **times),
    )


def batch_seconds(count: int, batch: int, trip: float, each: float) -> float:
    """Return the seconds of ``count`` commands: a trip for each batch and the work of each command.

    >>> batch_seconds(1000, 100, trip=0.001, each=0.00001)
    0.02
    """
    return ceil(count / batch) * trip + count * each


def batch_costs(
    measured: pd.DataFrame, each: Mapping[str, float], count: int, batch: int, trip_ms: float
) -> pd.DataFrame:
    """Return the tidy frame (method, seconds, source): `batch_seconds` by method, and measurements.

    Args:
        measured: A row a measurement, (method, count, batch, trip_ms, seconds); those of exactly
            what is asked for are returned.
        each: The work of a command in seconds, for "one by one", "async gather" (50 at once count
            as a batch of 50), "pipeline" (of ``batch``) and "MSET" (all in one).
        count: How many commands.
        batch: How many of them share a trip in a pipeline.
        trip_ms: Milliseconds of a round trip.
    """
    count = _check.whole("count", count, least=0)
    batch = _check.whole("batch", batch, least=1)
    trip_ms = _check.number("trip_ms", trip_ms)
    batches = {"one by one": 1, "async gather": 50, "pipeline": batch, "MSET": count}
    rows = [
        (method, batch_seconds(count, size, trip_ms / 1000, each[method]), "predicted")
        for method, size in batches.items()
    ]
    predicted = pd.DataFrame(rows, columns=["method", "seconds", "source"])
    same = measured[(measured["count"] == count) & (measured["trip_ms"] == trip_ms)]
    same = same[same["batch"] == same["method"].map(batches)].assign(source="measured")
    return pd.concat([predicted, same[["method", "seconds", "source"]]])


def batch_and_round_trip(measured: pd.DataFrame, each: Mapping[str, float]) -> ipywidgets.VBox:
    """Return sliders for count, batch and round trip above the bars of `batch_costs`.

    It takes the same data.
    """

    def draw(count: int, batch: int, trip_ms: float) -> Axes:
        df = batch_costs(measured, each, count, batch, trip_ms)
        times = df[df["source"] == "predicted"].set_index("method")["seconds"]
        found = f"{written(times['pipeline'], 's')} in batches of {batch:,}"
        return charts.bars(
            df,
            "method",
            "seconds",
            by="source",
            title=f"{count:,} users, trips of {trip_ms:.3g} ms: {found}",
            ylabel="time",
            roles={"predicted": "model", "measured": "cache"},
        )

    def slider(
        about: str, values: Iterable[float], write: str, value: float
    ) -> ipywidgets.SelectionSlider:
        options = [(format(one, write), one) for one in sorted({*values})]
        return ipywidgets.SelectionSlider(options=options, value=value, description=about)

    count, trips = int(measured["count"].max()), measured["trip_ms"].unique()
    middle = trips[len(trips) // 2]
    return panel(
        draw,
        count=slider("users", (count, 1000, 10_000, 100_000), ",", count),
        batch=slider("batch of the pipeline", (1, 10, 50, 100, 1000, 10_000), ",", 100),
        trip_ms=slider("round trip (ms)", (*trips, 25.0, 50.0, 100.0), ".3g", middle),
    )


def ttl_and_staleness(
    read_rate: float = 5.0, change_rate: float = 0.5, ttl: float = 0.4
) -> ipywidgets.VBox:
    """Return sliders for reads and changes a second and the TTL above the lines of `ttl_trade`.

    The points are the chosen TTL's.

    Args:
        read_rate: Reads of a key a second, where its slider begins.
        change_rate: Changes of its row a second, where its slider begins.
        ttl: Seconds, where its slider begins.
    """
    read_rate = _check.number("read_rate", read_rate, above=0)
    change_rate = _check.number("change_rate", change_rate, above=0)
    ttl = _check.number("ttl", ttl, above=0)

    def draw(read_rate: float, change_rate: float, ttl: float) -> Axes:
        chosen = ttl_trade(read_rate, change_rate, [ttl]).assign(source="chosen")
        hit, stale = (written(share, "%") for share in chosen["share"])
        title = f"TTL {written(ttl, 's')}: {hit} of the reads hit, {stale} are stale"
        lines = ttl_trade(read_rate, change_rate, [10 ** (n / 20) for n in range(-40, 81)])
        return charts.curve(
            pd.concat([lines, chosen]),
            "ttl_seconds",
            "share",
            "answers",
            title=title,
            alt=f"{title}. Both shares rise with the TTL, the hits first.",
            ylabel="share of reads",
            xlabel="TTL",
            roles={"hit": "cache", "stale": "database"},
            note="lines: model",
            logx=True,
            logy=False,
        )

    log = {"base": 10, "step": 0.05, "readout_format": ".3g"}
    slider = ipywidgets.FloatLogSlider
    return panel(
        draw,
        read_rate=slider(read_rate, min=-3, max=3, description="reads of a key a second", **log),
        change_rate=slider(
            change_rate, min=-5, max=1, description="changes of its row a second", **log
        ),
        ttl=slider(ttl, min=-2, max=4, description="TTL (s)", **log),
    )


def stampede(readers: int = 40, load: float = 0.02, technique: str = "nothing") -> ipywidgets.VBox:
    """Return readers, load time and technique above the loads at once, over two seconds.

    They are simulated by `cachelab.lab.faults.stampede.simulate`.

    Args:
        readers: How many, where its slider begins.
        load: Seconds of a load, where its slider begins.
        technique: What is chosen at first.
    """
    readers = _check.whole("readers", readers, least=1)
    load = _check.number("load", load, above=0)
    _check.choice("technique", technique, TECHNIQUES)

    def draw(technique: str, readers: int, load_ms: float) -> Axes:
        df = simulate(technique, readers, load_ms / 1000, seconds=2.0)
        loads = (df["event"] == "load").sum()
        slowest = written(df.loc[df["event"] == "read", "seconds"].max(), "s")
        found = f"{30 * loads:,} loads a minute, slowest read {slowest}"
        rule = f"the database does {CONNECTIONS} loads at once"
        return charts.timeline(
            under_way(df),
            "at",
            "loads",
            title=f"{technique}, {readers} readers: {found}",
            note=f"simulated; the value lives {written(TTL, 's')}, {rule}",
            steps=True,
            roles="database",
            ylabel="loads at once",
            xlabel="seconds since the start",
            xlim=(0, 2),
            ylim=(0, readers),  # the same for each technique
        )

    log = {"base": 10, "min": 0, "max": 2.7, "step": 0.05, "readout_format": ".0f"}
    return panel(
        draw,
        technique=ipywidgets.Dropdown(options=TECHNIQUES, value=technique, description="technique"),
        readers=ipywidgets.IntSlider(readers, min=4, max=200, step=4, description="readers"),
        load_ms=ipywidgets.FloatLogSlider(1000 * load, description="a load (ms)", **log),
    )


def limit_over_time(rate: float = 2.0, burst: int = 10, calls: float = 5.0) -> ipywidgets.VBox:
    """Return rate, burst and calls a second above what a token bucket lets pass in 20 seconds.

    It is simulated by `cachelab.lab.faults.applications.token_bucket`.

    Args:
        rate: Tokens a second, where its slider begins.
        burst: Tokens that the bucket holds, where its slider begins.
        calls: Calls a second, evenly spaced, where their slider begins.
    """
    rate = _check.number("rate", rate, above=0)
    burst = _check.whole("burst", burst, least=1)
    calls = _check.number("calls", calls, above=0)
    length = 20.0

    def draw(rate: float, burst: int, calls: float) -> Axes:
        df = token_bucket(rate, burst, [n / calls for n in range(int(length * calls))])
        most = df.groupby("what")["calls"].max()
        found = f"{most['passed']:,} of {most['sent']:,} calls pass in {length:g} s"
        return charts.timeline(
            df,
            "at",
            "calls",
            "what",
            title=f"Burst {burst}, rate {written(rate, '')} a second: {found}",
            note="simulated; the bucket begins full",
            steps=True,
            logy=False,
            roles={"sent": "model", "passed": "cache"},
            ylabel="calls so far",
            xlabel="seconds since the start",
            xlim=(0, length),
        )

    slider = ipywidgets.FloatSlider
    return panel(
        draw,
        rate=slider(rate, min=0.5, max=20, step=0.5, description="rate (tokens a second)"),
        burst=ipywidgets.IntSlider(burst, min=1, max=100, description="burst (tokens)"),
        calls=slider(calls, min=0.5, max=20, step=0.5, description="calls a second"),
    )


def hit_rate_and_capacity(
    policy: str, skew: float, share: float, keys: int, requests: int
) -> pd.DataFrame:
    """Return the tidy frame (policy, capacity, hit_rate, source) behind `how_big_a_cache`.

    Rows: the theory of the policy where it has one and that of perfect knowledge ("ideal"),
    simulations of ``requests``, and the room for ``share`` of the ``keys``, simulated too (policy
    "here", source "chosen").
    """
    _check.choice("policy", policy, tuple(POLICIES))
    skew = _check.number("skew", skew)
    keys = _check.whole("keys", keys, least=1)
    requests = _check.whole("requests", requests, least=1)
    chosen = max(1, round(_check.number("share", share, high=1) * keys))
    seen = _capacities(keys)[::4]
    points = [
        _simulated(policy, skew, capacities, keys, requests) for capacities in ((*seen,), (chosen,))
    ]
    df = pd.concat([_theory(policy, skew, keys), *points])
    return df.assign(policy=[*df["policy"][:-1], "here"], source=[*df["source"][:-1], "chosen"])


def how_big_a_cache(
    skew: float = 0.9,
    share: float = 0.1,
    policy: str = "LRU",
    keys: int = 1000,
    requests: int = 10_000,
    progress: bool = True,
) -> ipywidgets.VBox:
    """Return policy, skew and capacity above the hit rates of `hit_rate_and_capacity`.

    The room is a share of the keys. What the sliders need is simulated first, which takes some
    seconds and shows its ``progress``.
    """
    skews = [tenths / 10 for tenths in range(15)]
    cases = list(itertools.product(POLICIES, skews))
    for each, one in tqdm(cases, desc="Simulating", delay=1, leave=False, disable=not progress):
        hit_rate_and_capacity(each, one, share, keys, requests)
    note = (
        f"points: {requests:,} requests simulated, the second half counted; "
        "lines: theory, and perfect knowledge"
    )

    def draw(policy: str, skew: float, share: float) -> Axes:
        df = hit_rate_and_capacity(policy, round(skew, 1), share, keys, requests)
        rate = written(df.loc[df["source"] == "chosen", "hit_rate"].iloc[0], "%")
        room = f"room for {written(share, '%')} of {keys:,} keys"
        return charts.curve(
            df,
            "capacity",
            "hit_rate",
            "policy",
            title=f"{policy}, {room}: {rate} hits at skew {skew:.1f}",
            note=note,
            roles={policy: policy.lower(), "ideal": "model", "here": "miss"},
            xlabel="keys held",
            logx=True,
        )

    shares = [capacity / keys for capacity in _capacities(keys)]
    nearest = min(shares, key=lambda one: abs(one - share))
    return panel(
        draw,
        policy=ipywidgets.Dropdown(options=list(POLICIES), value=policy, description="policy"),
        skew=ipywidgets.FloatSlider(
            skew, min=0, max=skews[-1], step=0.1, description="skew", readout_format=".1f"
        ),
        share=ipywidgets.SelectionSlider(
            options=[(written(one, "%"), one) for one in shares],
            value=nearest,
            description="room, of all keys",
        ),
    )


def claim_and_evidence(
    rows: Iterable[claims.Row] | None = None, id: str = "set-pipeline-25x"
) -> ipywidgets.VBox:
    """Return a choice of claims above what is claimed and what was measured in each case.

    Args:
        rows: Of `claims.on_trial`; None: those of which figures have kept data.
        id: Of the claim that is shown first; where it has no data, the first that has.

    Raises:
        ValueError: No claim has data.
    """
    tried = claims.on_trial(trials=False, progress=False) if rows is None else rows
    found = {row.id: row for row in tried if row.cases}
    if not found:
        raise ValueError("rows must have data: python -m cachelab charts draws what they need")
    choice = ipywidgets.Dropdown(
        options=[(row.claim, name) for name, row in found.items()],
        value=id if id in found else next(iter(found)),
        description="claim",
    )
    return panel(lambda claim: claims.case_chart(found[claim]), claim=choice)


def prefetch_gains(trace: str, confidence: float, budget: float, reads: int = 1000) -> pd.DataFrame:
    """Return the tidy frame (reads, what, of_100) behind `prefetch_and_price`.

    Rows: of prefetch by the last read, how many of 100 reads became hits ("hits gained") and how
    many loads came to 100 without it ("more loads"), of reads "as they are" and "shuffled".

    Args:
        trace: A name of `prediction.traces`.
        confidence: As of `cachelab.smart.Markov`.
        budget: As of `cachelab.smart.Prefetcher`.
        reads: In the trace.
    """
    _check.choice("trace", trace, tuple(prediction.traces(reads)))
    return _gains(trace, float(confidence), float(budget), reads)


def prefetch_and_price(
    trace: str = "sessions", confidence: float = 0.4, budget: float = 0.2, progress: bool = True
) -> ipywidgets.VBox:
    """Return trace, confidence and budget above the gain and the price of `prefetch_gains`.

    What the sliders need is played first, which takes some seconds and shows its ``progress``.

    Args:
        trace: What is chosen at first.
        confidence: Where its slider begins, 0, 0.2, 0.4, 0.6 or 0.8.
        budget: Where its slider begins, 0.05, 0.1, 0.2, 0.5, 1, 2 or 5.
        progress: Whether a bar is shown.
    """
    names = ("sessions", "Python's names", "independent")
    _check.choice("trace", trace, names)
    confidences = (0.0, 0.2, 0.4, 0.6, 0.8)
    budgets = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    _check.choice("confidence", confidence, confidences)
    _check.choice("budget", budget, budgets)
    cases = list(itertools.product(names, confidences, budgets))
    for case in tqdm(cases, desc="Playing", delay=1, leave=False, disable=not progress):
        prefetch_gains(*case)

    def draw(trace: str, confidence: float, budget: float) -> Axes:
        df = prefetch_gains(trace, confidence, budget)
        hits, loads = df["of_100"][:2]
        return charts.bars(
            df,
            "what",
            "of_100",
            by="reads",
            title=f"{trace}: {hits:+.1f} points of hits, for {loads:+.1f} % loads",
            note="simulated: a thousand reads, room for a fifth of the ids",
            ylabel="of 100 reads, and of 100 loads",
            roles={"as they are": "cache", "shuffled": "random"},
        )

    def slider(about: str, values: Iterable[float], value: float) -> ipywidgets.SelectionSlider:
        options = [(f"{one:g}", one) for one in values]
        return ipywidgets.SelectionSlider(options=options, value=value, description=about)

    return panel(
        draw,
        trace=ipywidgets.Dropdown(options=names, value=trace, description="trace"),
        confidence=slider("confidence", confidences, confidence),
        budget=slider("budget, wasted of loads", budgets, budget),
    )


def _ends(control: ipywidgets.Widget) -> list:
    """Return the first and last value of a choice or a slider, where its pictures differ most."""
    if options := getattr(control, "options", None):
        outer = (options[0], options[-1])
        return [option[1] if isinstance(option, tuple) else option for option in outer]
    ends = [getattr(control, end) for end in ("min", "max") if control.has_trait(end)]
    base = getattr(control, "base", None)
    return [base**end for end in ends] if base else ends


def _capacities(keys: int) -> list[int]:
    """Return numbers of keys from a hundredth to all, evenly spaced on a logarithmic axis."""
    return sorted({max(1, round(keys * 10 ** (-n / 8))) for n in range(17)})


@functools.cache
def _theory(policy: str, skew: float, keys: int) -> pd.DataFrame:
    known = [policy] * (policy in ("LRU", "random", "FIFO"))
    lines = hit_rate_lines(popularity(keys, skew), _capacities(keys), ["LFU", *known])
    return lines.replace("LFU", "ideal")


@functools.cache
def _simulated(
    policy: str, skew: float, capacities: tuple[int, ...], keys: int, requests: int
) -> pd.DataFrame:
    return hit_rates([policy], zipf(requests, keys, skew), capacities, skip=requests // 2)


@functools.cache
def _case(trace: str, reads: int) -> tuple[prediction.Case, prediction.Case]:
    case = prediction.traces(reads)[trace](0)
    return case, prediction.shuffled(case)


@functools.cache
def _gains(trace: str, confidence: float, budget: float, reads: int) -> pd.DataFrame:
    technique = prediction.prefetching(lambda: Markov(1, confidence), budget)
    rows = []
    for name, case in zip(("as they are", "shuffled"), _case(trace, reads), strict=True):
        with_it, without = technique.play(case)
        more = {
            "hits gained": with_it.hits - without.hits,
            "more loads": with_it.loads - without.loads,
        }
        of = {"hits gained": with_it.reads, "more loads": without.loads}
        rows += [(name, what, 100 * more[what] / of[what]) for what in more]
    return pd.DataFrame(rows, columns=["reads", "what", "of_100"])
