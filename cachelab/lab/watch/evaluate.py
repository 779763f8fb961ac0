"""Alert rules evaluated in this process, on what it has scraped itself: a small part of PromQL.

What Prometheus does, in its words: a *series* is a metric with labels; an *instant vector* has one
value a series; a *range vector* the samples of a window, both ends included; a series that a
scrape no longer has is *stale* from then on. Rates are extrapolated as Prometheus 2 does it
(``extrapolatedRate`` in promql/functions.go). What is not known here is refused, never guessed.
"""

import math
import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from cachelab import _check
from cachelab.lab.watch.rules import Rule

LOOKBACK = 300.0  # seconds for which a sample stands, where nothing newer has come
COLUMNS = ["time", "metric", "labels", "value"]
INTERVALS = ["alert", "labels", "since", "begin", "end"]

Labels = tuple[tuple[str, str], ...]  # sorted by name; the metric's name is __name__
Vector = dict[Labels, float]
Samples = tuple[list[float], list[float]]  # times and values
Node = Callable[["Series", float], Any]

TOKEN = re.compile(
    r"\s*(?:(?P<time>(?:\d+(?:ms|[smhdwy]))+)|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>[a-zA-Z_][\w:]*)|(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
    r"|(?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){}\[\],:]))"
)
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
LEVELS: list[tuple[str, ...]] = [
    ("or",),
    ("and", "unless"),
    ("==", "!=", "<", ">", "<=", ">="),
    ("+", "-"),
    ("*", "/", "%"),
]
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


class Series:
    """Samples by series, in order of time; a value of NaN says that the series has gone stale.

    Args:
        df: The frame (time, metric, labels, value); labels as ``a="x",b="y"``.
    """

    def __init__(self, df: pd.DataFrame):
        self.by_metric: dict[str, dict[Labels, Samples]] = {}
        self.known: dict[tuple[Node, float], Vector] = {}  # what subqueries have evaluated
        rows = df.sort_values("time", kind="stable")[COLUMNS].itertuples(index=False, name=None)
        for time, metric, text, value in rows:
            series = self.by_metric.setdefault(metric, {})
            times, values = series.setdefault(labels_of(text), ([], []))
            times.append(float(time))
            values.append(float(value))

    def at(self, found: Mapping[Labels, Samples], time: float) -> Vector:
        """Return the value that each series has at a time."""
        vector = {}
        for labels, (times, values) in found.items():
            last = bisect_right(times, time) - 1
            if last >= 0 and times[last] > time - LOOKBACK and not math.isnan(values[last]):
                vector[labels] = values[last]
        return vector

    def between(
        self, found: Mapping[Labels, Samples], begin: float, end: float
    ) -> dict[Labels, Samples]:
        """Return the samples of each series from begin to end, both included."""
        windows = {}
        for labels, (times, values) in found.items():
            span = slice(bisect_left(times, begin), bisect_right(times, end))
            kept = [
                (at, value)
                for at, value in zip(times[span], values[span], strict=True)
                if not math.isnan(value)
            ]
            if kept:
                windows[labels] = [at for at, _ in kept], [value for _, value in kept]
        return windows


def firing(
    rules: Sequence[Rule], df: pd.DataFrame, times: Iterable[float] | None = None
) -> pd.DataFrame:
    """Evaluate rules on scraped samples, and return when each of them fired.

    Args:
        rules: The rules.
        df: The frame (time, metric, labels, value) of `scrape`, all scrapes of it.
        times: When the rules are evaluated; by default at each time at which something was scraped.

    Returns:
        The tidy frame (alert, labels, since, begin, end), a row for each time that an alert fired:
        since when its condition held, when it began to fire, and when that ended, NaN where it had
        not by the last evaluation.

    Raises:
        ValueError: A rule uses what is not known here.
    """
    series = Series(df)
    moments = sorted(set(map(float, df["time"] if times is None else times)))
    rows: list[tuple[str, str, float, float, float]] = []
    for rule in rules:
        node, held = parsed(rule.expr), dict[Labels, list[float]]()  # since, and begin or NaN
        for time in moments:
            found = as_vector(node(series, time))
            now = {_without_name(labels) for labels in found}
            for labels in held.keys() - now:
                rows += _ended(rule, labels, held.pop(labels), time)
            for labels in now:
                since = held.setdefault(labels, [time, math.nan])
                if math.isnan(since[1]) and time - since[0] >= rule.for_seconds - 1e-9:
                    since[1] = time
        for labels, since in held.items():
            rows += _ended(rule, labels, since, math.nan)
    df = pd.DataFrame(rows, columns=INTERVALS)
    return df.sort_values(["begin", "alert", "labels"], ignore_index=True)


def holding(expr: str, df: pd.DataFrame, time: float) -> pd.DataFrame:
    """Return what an expression says at a time, as the frame (metric, labels, value)."""
    rows = []
    for labels, value in as_vector(parsed(expr)(Series(df), float(time))).items():
        rows.append((dict(labels).get("__name__", ""), text_of(_without_name(labels)), value))
    return pd.DataFrame(rows, columns=COLUMNS[1:])


def labels_of(text: str) -> Labels:
    """Return the labels of a text such as ``cache="users",outcome="hit"``, sorted.

    >>> labels_of('b="2",a="x"')
    (('a', 'x'), ('b', '2'))
    """
    return _labels_of(text)


def text_of(labels: Labels | Mapping[str, str]) -> str:
    """Return labels as one text, sorted by name."""
    items = labels.items() if isinstance(labels, Mapping) else labels
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(items))


@lru_cache(256)
def parsed(expr: str) -> Node:
    """Return the function of (series, time) that an expression of PromQL is.

    Raises:
        ValueError: It is no PromQL, or uses what is not known here.
    """
    return _Parser(_check.text("expr", expr)).whole()


def as_vector(value: Any) -> Vector:
    """Return an instant vector; a number has no labels, as in ``vector(0)``."""
    return {(): value} if isinstance(value, float) else value


class _Parser:
    """Reads an expression from left to right; each method returns a function of (series, time)."""

    def __init__(self, expr: str):
        self._expr = expr
        self._tokens = list(_tokens(expr))
        self._at = 0

    def whole(self) -> Node:
        node = self._operation(0)
        if self._kind() != "end":
            raise self._unknown("after a whole expression")
        return node

    def _operation(self, level: int) -> Node:
        if level == len(LEVELS):
            return self._signed()
        left = self._operation(level + 1)
        while self._word() in LEVELS[level]:
            sign = self._take()
            if self._word() in ("bool", "group_left", "group_right"):
                raise self._unknown("a modifier")
            key = self._matching()
            left = _binary(sign, key, left, self._operation(level + 1))
        return left

    def _signed(self) -> Node:
        if self._word() == "-":
            self._take()
            node = self._signed()
            return _binary("*", None, lambda series, time: -1.0, node)
        return self._subquery(self._primary())

    def _primary(self) -> Node:
        kind, word = self._kind(), self._word()
        if word == "(":
            self._take()
            node = self._operation(0)
            self._expect(")")
            return node
        if kind == "number":
            number = float(self._take())
            return lambda series, time: number
        if kind != "name" and word != "{":
            raise self._unknown("a value")
        if word in AGGREGATE:
            return self._aggregation(self._take())
        if kind == "name" and self._word(1) == "(":
            return self._call(self._take())
        return self._selector()

    def _aggregation(self, name: str) -> Node:
        grouping = self._grouping(("by", "without"))
        self._expect("(")
        node = self._operation(0)
        self._expect(")")
        grouping = grouping or self._grouping(("by", "without")) or ("by", ())
        key = _keeps(*grouping)

        def aggregated(series: Series, time: float) -> Vector:
            groups: dict[Labels, list[float]] = {}
            for labels, value in node(series, time).items():
                groups.setdefault(key(labels), []).append(value)
            return {labels: float(AGGREGATE[name](values)) for labels, values in groups.items()}

        return aggregated

    def _call(self, name: str) -> Node:
        if name not in FUNCTIONS:
            raise self._unknown(f"the function {name}", back=1)
        self._expect("(")
        arguments = []
        while self._word() != ")":
            arguments.append(self._operation(0))
            if self._word() == ",":
                self._take()
        self._expect(")")
        if len(arguments) != ARGUMENTS.get(name, 1):
            raise self._unknown(f"{name} with {len(arguments)} arguments", back=1)
        if name == "time":
            return lambda series, time: time
        function = FUNCTIONS[name]
        return lambda series, time: function(*(one(series, time) for one in arguments))

    def _selector(self) -> Node:
        name = self._take() if self._kind() == "name" else ""
        matchers = list(self._matchers())
        window = 0.0
        if self._word() == "[":
            self._take()
            window = self._duration()
            self._expect("]")
        offset = self._offset()

        def selected(series: Series, time: float) -> Any:
            found: dict[Labels, Samples] = {}
            for metric in [name] if name else series.by_metric:
                for labels, samples in series.by_metric.get(metric, {}).items():
                    known = dict(labels, __name__=metric)
                    if all(match(known.get(label, "")) for label, match in matchers):
                        found[tuple(sorted(known.items()))] = samples
            until = time - offset
            return (
                _Window(series.between(found, until - window, until), until - window, until)
                if window
                else series.at(found, until)
            )

        return selected

    def _matchers(self) -> Iterator[tuple[str, Callable[[str], bool]]]:
        if self._word() != "{":
            return
        self._take()
        while self._word() != "}":
            label, sign = self._take(), self._take()
            if sign not in MATCH or self._kind() != "text":
                raise self._unknown("a matcher")
            yield label, MATCH[sign](_text(self._take()))
            if self._word() == ",":
                self._take()
        self._take()

    def _subquery(self, node: Node) -> Node:
        """Read what may follow a value: ``[1h:15s] offset 45s`` evaluates it at even times."""
        if self._word() != "[":
            if self._word() in ("offset", "@"):
                raise self._unknown("an offset of what is no selector")
            return node
        self._take()
        window = self._duration()
        self._expect(":")
        step = self._duration()
        self._expect("]")
        offset = self._offset()

        def evaluated(series: Series, time: float) -> _Window:
            begin, end = time - offset - window, time - offset
            found: dict[Labels, Samples] = {}
            for count in range(math.ceil(begin / step - 1e-9), math.floor(end / step + 1e-9) + 1):
                at = count * step
                if (node, at) not in series.known:
                    series.known[node, at] = as_vector(node(series, at))
                for labels, value in series.known[node, at].items():
                    times, values = found.setdefault(labels, ([], []))
                    times.append(at)
                    values.append(value)
            return _Window(found, begin, end)

        return evaluated

    def _offset(self) -> float:
        if self._word() != "offset":
            return 0.0
        self._take()
        return self._duration()

    def _matching(self) -> Callable[[Labels], Labels]:
        grouping = self._grouping(("on", "ignoring"))
        if self._word() in ("group_left", "group_right"):
            raise self._unknown("a modifier")
        if grouping is None:
            return _without_name
        return _keeps({"on": "by", "ignoring": "without"}[grouping[0]], grouping[1])

    def _grouping(self, words: tuple[str, str]) -> tuple[str, tuple[str, ...]] | None:
        if self._word() not in words:
            return None
        word, labels = self._take(), []
        self._expect("(")
        while self._word() != ")":
            labels.append(self._take())
            if self._word() == ",":
                self._take()
        self._take()
        return word, tuple(labels)

    def _duration(self) -> float:
        if self._kind() != "time":
            raise self._unknown("a duration")
        parts = re.findall(r"(\d+)(ms|[smhdwy])", self._take())
        return sum(float(count) * SECONDS[unit] for count, unit in parts)

    def _kind(self) -> str:
        return self._tokens[self._at][0]

    def _word(self, ahead: int = 0) -> str:
        kind, word = self._tokens[min(self._at + ahead, len(self._tokens) - 1)]
        return word if kind != "text" else ""

    def _take(self) -> str:
        word = self._tokens[self._at][1]
        if self._kind() == "end":
            raise self._unknown("the end")
        self._at += 1
        return word

    def _expect(self, word: str) -> None:
        if self._word() != word:
            raise self._unknown(f"no {word!r}")
        self._take()

    def _unknown(self, what: str, back: int = 0) -> ValueError:
        word = self._tokens[max(0, self._at - back)][1] or "the end"
        return ValueError(
            f"expr must be of the part of PromQL that is known here, not {what} at {word!r} in "
            f"{self._expr!r}: Prometheus itself knows the rest"
        )


class _Window(dict[Labels, Samples]):
    """A range vector, and the window that it is of."""

    def __init__(self, found: Mapping[Labels, Samples], begin: float, end: float):
        super().__init__(found)
        self.begin, self.end = begin, end


def _binary(sign: str, key: Callable[[Labels], Labels] | None, left: Node, right: Node) -> Node:
    key = key or _without_name

    def both(series: Series, time: float) -> Any:
        one, other = left(series, time), right(series, time)
        if sign in ("and", "or", "unless"):
            return _set(sign, key, as_vector(one), as_vector(other))
        if isinstance(one, float) and isinstance(other, float):
            return _combined(sign, one, other, scalar=True)
        if isinstance(other, float):
            return _each(sign, one, lambda value: (value, other))
        if isinstance(one, float):
            return _each(sign, other, lambda value: (one, value))
        return _matched(sign, key, one, other)

    return both


def _set(sign: str, key: Callable[[Labels], Labels], one: Vector, other: Vector) -> Vector:
    if sign == "or":
        known = {key(labels) for labels in one}
        return one | {labels: value for labels, value in other.items() if key(labels) not in known}
    there = {key(labels) for labels in other}
    return {
        labels: value for labels, value in one.items() if (key(labels) in there) == (sign == "and")
    }


def _matched(sign: str, key: Callable[[Labels], Labels], one: Vector, other: Vector) -> Vector:
    """Combine two vectors, series by series: one to one."""
    partners = _unique((key(labels), value) for labels, value in other.items())
    results = []
    for labels, value in one.items():
        if (partner := partners.get(key(labels))) is not None:
            if (result := _combined(sign, value, partner)) is not None:
                results.append((key(labels), result))
    return _unique(results)


def _unique(items: Iterable[tuple[Labels, float]]) -> Vector:
    """Return a vector; refuse two values under the same labels."""
    vector: Vector = {}
    for labels, value in items:
        if labels in vector:
            raise ValueError(f"many series match {text_of(labels)!r}: sum them first")
        vector[labels] = value
    return vector


def _each(sign: str, vector: Vector, pair: Callable[[float], tuple[float, float]]) -> Vector:
    """Combine each value with a number; a comparison keeps the value, and the metric's name."""
    found = {}
    for labels, value in vector.items():
        result = _combined(sign, *pair(value))
        if result is not None and sign in COMPARE:
            found[labels] = value
        elif result is not None:
            found[_without_name(labels)] = result
    return found


def _combined(sign: str, one: float, other: float, scalar: bool = False) -> float | None:
    if sign in COMPARE:
        if scalar:
            raise ValueError(f"a comparison of two numbers ({one:g} {sign} {other:g}) is no alert")
        return one if COMPARE[sign](one, other) else None
    if sign == "/":
        return one / other if other else math.nan if math.isnan(one) or not one else one * math.inf
    if sign == "%":
        return math.fmod(one, other) if other else math.nan
    return {"+": operator.add, "-": operator.sub, "*": operator.mul}[sign](one, other)


def _rate(found: _Window) -> Vector:
    span = found.end - found.begin
    return {labels: value / span for labels, value in _increase(found).items()}


def _increase(found: _Window) -> Vector:
    return _extrapolated(found, is_counter=True)


def _delta(found: _Window) -> Vector:
    return _extrapolated(found, is_counter=False)


def _extrapolated(found: _Window, is_counter: bool) -> Vector:
    """Return by how much series grew in their window, a counter that falls having begun anew.

    What the first and the last sample do not reach is added at the same pace: up to the ends of
    the window where they are near, by half the time between two samples where they are not, and
    never back beyond where a counter was 0.
    """
    vector = {}
    for labels, (times, values) in found.items():
        if len(times) < 2:
            continue
        grown = values[-1] - values[0]
        if is_counter:
            falls = zip(values, values[1:], strict=False)
            grown += sum(before for before, after in falls if after < before)
        sampled = times[-1] - times[0]
        apart = sampled / (len(times) - 1)
        before, after = times[0] - found.begin, found.end - times[-1]
        if is_counter and grown > 0 and values[0] >= 0:
            before = min(before, sampled * (values[0] / grown))
        reach = sampled + sum(gap if gap < 1.1 * apart else apart / 2 for gap in (before, after))
        vector[_without_name(labels)] = grown * (reach / sampled)
    return vector


def _over_time(function: Callable[[list[float]], float]) -> Callable[[_Window], Vector]:
    keeps_name = function is _last

    def applied(found: _Window) -> Vector:
        return {
            labels if keeps_name else _without_name(labels): float(function(values))
            for labels, (_, values) in found.items()
        }

    return applied


def _last(values: list[float]) -> float:
    return values[-1]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _changes(values: list[float]) -> float:
    return float(sum(a != b for a, b in zip(values, values[1:], strict=False)))


def _quantile_over_time(share: float, found: _Window) -> Vector:
    """Return a quantile of each series' samples, between two of them in proportion."""
    vector = {}
    for labels, (_, values) in found.items():
        ranked, rank = sorted(values), share * (len(values) - 1)
        low = max(0, math.floor(rank))
        high = min(len(values) - 1, low + 1)
        part = rank - math.floor(rank)
        vector[_without_name(labels)] = ranked[low] * (1 - part) + ranked[high] * part
    return vector


def _absent(vector: Vector) -> Vector:
    return {} if vector else {(): 1.0}


AGGREGATE: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "min": min,
    "max": max,
    "avg": _mean,
    "count": len,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rate": _rate,
    "increase": _increase,
    "delta": _delta,
    "changes": _over_time(_changes),
    "min_over_time": _over_time(min),
    "max_over_time": _over_time(max),
    "avg_over_time": _over_time(_mean),
    "last_over_time": _over_time(_last),
    "absent": _absent,
    "vector": as_vector,
    "quantile_over_time": _quantile_over_time,
    "time": float,
}
ARGUMENTS = {"quantile_over_time": 2, "time": 0}  # all others take one
MATCH: dict[str, Callable[[str], Callable[[str], bool]]] = {
    "=": lambda wanted: lambda seen: seen == wanted,
    "!=": lambda wanted: lambda seen: seen != wanted,
    "=~": lambda wanted: lambda seen: re.fullmatch(wanted, seen) is not None,
    "!~": lambda wanted: lambda seen: re.fullmatch(wanted, seen) is None,
}


def _tokens(expr: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(expr.rstrip())
    while at < end:
        found = TOKEN.match(expr, at)
        if found is None or found.lastgroup is None:
            raise ValueError(f"expr must be PromQL, not {expr[at:].strip()[:20]!r} in {expr!r}")
        yield found.lastgroup, found[found.lastgroup]
        at = found.end()
    yield "end", ""


def _keeps(how: str, names: tuple[str, ...]) -> Callable[[Labels], Labels]:
    if how == "by":
        return lambda labels: tuple(item for item in labels if item[0] in names)
    gone = {*names, "__name__"}
    return lambda labels: tuple(item for item in labels if item[0] not in gone)


def _without_name(labels: Labels) -> Labels:
    return tuple(item for item in labels if item[0] != "__name__")


def _ended(
    rule: Rule, labels: Labels, since: list[float], end: float
) -> list[tuple[str, str, float, float, float]]:
    """Return the row of an alert that has ended, none if it had not begun to fire."""
    began, fires = since
    return [] if math.isnan(fires) else [(rule.alert, text_of(labels), began, fires, end)]


@lru_cache(100_000)
def _labels_of(text: str) -> Labels:
    found = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', text)
    return tuple(sorted((name, _text(f'"{value}"')) for name, value in found))


def _text(quoted: str) -> str:
    plain = {"n": "\n"}
    return re.sub(r"\\(.)", lambda found: plain.get(found[1], found[1]), quoted[1:-1])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
