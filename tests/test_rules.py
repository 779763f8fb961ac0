"""Alert rules as data, and their evaluation on what this process has scraped itself."""

import math
import re
import subprocess
import sys
from pathlib import Path
from time import sleep

import pandas as pd
import psutil
import pytest
import yaml

import cachelab as cl
from cachelab.lab.watch import rules as rules_of
from cachelab.lab.watch.chain import FAULTS, Watched
from cachelab.lab.watch.evaluate import COLUMNS, firing, holding, parsed
from cachelab.lab.watch.rules import Rule, as_yaml, copied, duration, rules
from cachelab.lab.watch.scrapes import Scrapes, samples

FILE = Path(__file__).parent.parent / "monitoring" / "rules.yml"


def frame(*series: tuple[str, str, list[float | None]], every: float = 1.0) -> pd.DataFrame:
    """Samples of (metric, labels, values): None where there is none, NaN where it went stale."""
    rows = [
        (every * at, metric, labels, value)
        for metric, labels, values in series
        for at, value in enumerate(values)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def value(expr: str, df: pd.DataFrame, time: float) -> list[float]:
    return holding(expr, df, time)["value"].to_list()


def rule(expr: str, seconds: float = 2.0) -> Rule:
    return Rule("Test", expr, seconds, "warning", "It is a test.")


def test_the_committed_rules_are_these():
    assert FILE.read_text(encoding="utf-8") == as_yaml(rules(), note=rules_of.NOTE)


def test_the_committed_prometheus_scrapes_as_often_and_by_the_names_that_the_rules_count_on():
    told = yaml.safe_load(FILE.with_name("prometheus.yml").read_text(encoding="utf-8"))
    every = duration(rules_of.SCRAPE)
    assert told["global"]["scrape_interval"] == told["global"]["evaluation_interval"] == every
    assert {one["job_name"] for one in told["scrape_configs"]} >= {"cachelab", "redis"}
    assert FILE.name in told["rule_files"]


@pytest.mark.parametrize("made", [rules, copied])
def test_every_rule_is_whole_and_has_a_name_of_its_own(made):
    known = made(15)
    (group,) = yaml.safe_load(as_yaml(known))["groups"]
    assert len({one.alert for one in known}) == len(known) == len(group["rules"])
    assert [one["expr"] for one in group["rules"]] == [one.expr for one in known]
    assert all(one.severity in ("critical", "warning") and one.summary for one in known)
    assert all(bool(one.remedy) == (made is rules) == (not one.source) for one in known)


def test_one_variable_moves_every_window():
    for one, other in zip(rules(1), rules(15), strict=True):
        moved = re.sub(r"(?<=[\[: ])(\d+)s\b", lambda found: f"{15 * int(found[1])}s", one.expr)
        if one.alert == "WriteBehindStuck":  # an age, which is compared with a scrape
            moved = moved.replace("> 0.5 ", "> 7.5 ")
        assert (moved, 15 * one.for_seconds) == (other.expr, other.for_seconds)


def test_every_fault_has_a_rule_and_every_rule_but_the_scrape_s_own_a_fault():
    named = {alert for fault in FAULTS.values() for alert in (fault.alert, *fault.also)}
    assert named == {one.alert for one in rules()} - {"TargetDown"}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"scrape": 0}, "scrape must be"),
        ({"scrape": "15s"}, "scrape must be"),
        ({"slow": 0.3}, "slow must be one of 0.001, .*0.25"),
    ],
)
def test_bad_arguments_are_refused(bad, says):
    with pytest.raises((TypeError, ValueError), match=says):
        rules(**bad)


def test_durations_are_written_as_prometheus_reads_them():
    assert [duration(s) for s in (0, 0.75, 1, 45.0, 3600)] == ["0s", "750ms", "1s", "45s", "3600s"]


COUNTS = frame(
    ("reads", 'cache="a",outcome="hit"', [10.0 * n for n in range(8)]),
    ("reads", 'cache="a",outcome="miss"', [5.0, 6, 7, 0, 1, 2, 3, 4]),  # began anew
    ("reads", 'cache="b",outcome="hit"', [None, None, None, None, 7.0, math.nan, None, None]),
    ("up", 'cache="a"', [1.0, 1, 0, 0, 0, 1, 1, 1]),
)
MEANS = {  # at the time 7
    'sum by (outcome) (rate(reads{cache="a"}[3s]))': [10, 1],
    'rate(reads{outcome="miss"}[7s])': [6 / 7],  # 2, then 0 again, then 4
    'increase(reads{outcome="miss"}[3s])': [3],
    "sum(reads) - 70": [4],
    'reads{cache=~"b|c"}': [],  # it has gone stale
    'last_over_time(reads{cache="b"}[3s])': [7],
    'reads{cache="a",outcome!="hit"} > 3 < 5': [4],
    'reads{outcome="hit"} / ignoring (outcome) reads{outcome="miss"}': [70 / 4],
    'reads{outcome="hit"} offset 2s': [50],
    "up == 0 or reads > 60": [70],
    'reads and on (cache) up{cache="a"} == 1': [70, 4],
    "reads unless on (cache) up": [],
    "avg(up) by (cache) + 2 * 3": [7],
    "delta(up[4s])": [1],
    "changes(up[7s])": [2],
    "min_over_time(up[7s]) + max_over_time(up[7s])": [1],
    "quantile_over_time(0.5, up[7s])": [1],
    'quantile_over_time(0.5, (reads{outcome="hit"} > 40)[6s:1s] offset 1s)': [55],
    "absent(nothing)": [1],
    "count(nothing) or vector(0)": [0],
    "time() - 3 * 60 * 60": [7 - 10800],
    "up / 0": [math.inf],
    "-up": [-1],
    "nothing / nothing > 0": [],
}


@pytest.mark.parametrize("expr", MEANS)
def test_an_expression_means_what_it_means_in_prometheus(expr):
    assert value(expr, COUNTS, 7) == pytest.approx(MEANS[expr])


UNKNOWN = [
    "histogram_quantile(0.9, reads)",
    "reads[5m] offset",
    "sum(reads",
    "reads > bool 1",
    "a * on (x) group_left b",
    "rate(reads[5x])",
    "reads ?",
    "reads{cache}",
    "(reads) offset 1m",
    "rate(reads[1m], 2)",
]


@pytest.mark.parametrize("expr", UNKNOWN)
def test_what_is_not_known_is_refused_and_never_guessed(expr):
    with pytest.raises(ValueError, match="^expr must be"):
        parsed(expr)


def test_an_alert_fires_when_its_condition_has_held_for_long_enough_and_ends_with_it():
    df = frame(
        ("bad", 'x="1"', [0.0, 1, 0, 1, 1, 1, 1, 0]), ("bad", 'x="2"', [0.0] * 5 + [1.0] * 3)
    )
    fired = firing([rule("bad == 1")], df)
    assert fired[["labels", "since", "begin", "end"]].fillna(-1).values.tolist() == [
        ['x="1"', 3, 5, 7],
        ['x="2"', 5, 7, -1],  # not over by the last evaluation
    ]


def test_a_counter_that_begins_anew_is_no_fall_and_no_leap():
    restarted = frame(("errors", "", [1000.0, 1000, 1000, 0, 0, 0]))
    for time in range(6):
        assert value("rate(errors[3s]) > 0", restarted, time) == []
    assert value("delta(errors[3s]) < 0", restarted, 4) != []  # what knows no counters


def test_two_series_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="many series match"):
        value("up / on () reads", COUNTS, 7)


def test_a_scrape_keeps_what_was_said_who_is_up_and_what_has_gone():
    texts = iter(['a{x="1"} 1\nb 2\n', "b 3\n"])
    scrapes = Scrapes({"app": lambda: next(texts)})
    scrapes.look(now=1.0)
    second = scrapes.look(now=2.0).set_index("metric")["value"]
    assert second["b"] == 3 and math.isnan(second["a"]) and second["up"] == 1
    assert value('a{x="1",job="app"}', scrapes.frame, 1.0) == [1]
    assert value("a", scrapes.frame, 2.0) == []


def test_a_target_that_does_not_answer_is_not_up_and_its_series_are_gone():
    answers = iter(["a 1\n"])

    def text() -> str:
        for answer in answers:
            return answer
        raise ConnectionRefusedError

    scrapes = Scrapes({"app": text, "nobody": "http://127.0.0.1:9/metrics"})
    for now in range(2):
        scrapes.look(now=float(now))
    assert holding("up", scrapes.frame, 1.0).set_index("labels")["value"].to_dict() == {
        'instance="app",job="app"': 0,
        'instance="127.0.0.1:9",job="nobody"': 0,
    }
    assert value("a", scrapes.frame, 1.0) == []


def test_labels_come_through_whatever_stands_in_them():
    (one,) = samples('a{x="say \\"so\\", b\\\\c"} 1\n', {"job": "app"})
    df = pd.DataFrame([(0.0, *one)], columns=COLUMNS)
    assert value('a{x="say \\"so\\", b\\\\c",job="app"}', df, 0) == [1]


@pytest.fixture(scope="module")
def watched():
    with Watched() as watched:
        yield watched


@pytest.mark.parametrize("fault", ["wrong password", "frozen"])
def test_the_same_rules_see_a_fault_from_here_and_not_before_it(watched, fault):
    scrapes, told = Scrapes(watched.targets), FAULTS[fault]

    def fired(known: list[Rule]) -> set[str]:
        return set(firing(known, scrapes.frame)["alert"])

    scrapes.watch(2, every=0.5)
    assert told.alert not in fired(rules(0.5))
    watched.cause(fault)
    try:
        for _ in range(40):  # a slow machine may need more of them
            scrapes.watch(0.5, every=0.5)
            if told.alert in fired(rules(0.5)):
                break
    finally:
        watched.mend(fault)
    assert told.alert in fired(rules(0.5))
    assert not fired(copied(0.5)) - {"RedisMissingMaster"}  # those see no application


def test_an_application_ends_with_the_process_that_watches_it_however_that_ends():
    code = (
        "from cachelab.lab.watch.chain import Watched\n"
        "watched = Watched().start(); print(watched._application.pid, flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as watching:
        application = psutil.Process(int(watching.stdout.readline()))
        assert application.is_running()
        watching.kill()
    application.wait(timeout=30)


def test_faults_that_are_not_known_or_not_there_are_refused(watched):
    with pytest.raises(ValueError, match="fault must be one of 'killed', 'frozen'"):
        watched.cause("bad luck")
    with pytest.raises(ValueError, match="fault must be one of"):
        watched.mend("killed")
    assert watched.faults == []


def shows(watched, metric: str, text: str = "") -> bool:
    """Wait until a series of the application whose labels have a text is above 0; say whether."""
    for _ in range(300):
        df = Scrapes(watched.targets).look()
        is_meant = (df["metric"] == metric) & df["labels"].str.contains(text)
        if df["value"][is_meant].sum() > 0:
            return True
        sleep(0.05)
    return False


def test_of_two_faults_at_once_the_last_one_is_mended_first(watched):
    watched.cause("full")
    watched.cause("frozen")
    watched.mend()  # a frozen server cannot be emptied
    assert watched.faults == []
    watched.cause("killed")
    with pytest.raises(cl.RedisUnavailable):
        watched.cause("full")  # which is not there, then
    assert watched.faults == ["killed"]
    watched.mend()


def test_a_wrong_password_is_seen_again_after_one_that_left_deletes_pending(watched):
    watched.cause("stampede")
    watched.cause("wrong password")
    assert shows(watched, "cachelab_pending_deletes")
    watched.mend()
    watched.cause("wrong password")
    try:
        assert shows(watched, "cachelab_errors_total", "AuthenticationError")
    finally:
        watched.mend()
