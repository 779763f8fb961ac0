"""The alert rules by Prometheus' own account: promtool's, and that of a chain of real parts.

The rules that people copy run beside ours, as the control that misses a fault or cries wolf.
"""

import math
import random
import shutil
import subprocess

import pandas as pd
import pytest
import test_rules
import yaml

from cachelab.errors import ServerError
from cachelab.lab.watch import chain as chain_of
from cachelab.lab.watch.chain import FAULTS, Chain
from cachelab.lab.watch.dashboard import queries
from cachelab.lab.watch.evaluate import COLUMNS, firing, holding, labels_of, text_of
from cachelab.lab.watch.rules import FOR, as_yaml, copied, rules

further = pytest.mark.further
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus"
)
needs_chain = pytest.mark.skipif(
    not all(map(shutil.which, chain_of.PACKAGES)),
    reason=f"needs apt-get install {' '.join(chain_of.PACKAGES.values())}",
)

SCRAPE = 15
APP = {"job": "cachelab", "instance": "app:8000"}
REDIS = {"job": "redis", "instance": "redis:9121"}
USERS = APP | {"cache": "users"}


def series(metric: str, labels: dict, *parts: str | float) -> dict:
    """One series of promtool's, in its notation: "0+5x3" is 0 5 10 15, "_" no sample."""
    return {"series": f"{metric}{{{text_of(labels)}}}", "values": " ".join(map(str, parts))}


def reads(outcome: str, *parts) -> dict:
    return series("cachelab_reads_total", USERS | {"outcome": outcome}, *parts)


def loads(outcome: str, *parts) -> dict:
    return series("cachelab_loads_total", USERS | {"outcome": outcome}, *parts)


def errors(kind: str, *parts) -> dict:
    return series("cachelab_errors_total", USERS | {"kind": kind}, *parts)


def breaker(*parts) -> dict:
    return series("cachelab_breaker_open", USERS | {"server": "redis:6379"}, *parts)


def up(labels: dict, *parts) -> dict:
    return series("up", labels, *parts)


def running(*parts) -> dict:
    return series("cachelab_loads_running", USERS, *parts)


def answers(metric: str, *parts) -> dict:
    return series(f"cachelab_server_{metric}", APP | {"server": "main"}, *parts)


def redis(metric: str, *parts, **labels) -> dict:
    return series(f"redis_{metric}", REDIS | labels, *parts)


def alert(rule, **labels) -> dict:
    annotations = {"summary": rule.summary} | ({"remedy": rule.remedy} if rule.remedy else {})
    return {"exp_labels": labels | {"severity": rule.severity}, "exp_annotations": annotations}


def promtool(tmp_path, tested, input_series, expected, interval=SCRAPE) -> str:
    """Have promtool test rules; return what it finds wrong, "" if nothing.

    expected: {(seconds, alert): what fires then}.
    """
    (tmp_path / "rules.yml").write_text(as_yaml(tested))
    test = {
        "interval": f"{interval}s",
        "input_series": input_series,
        "alert_rule_test": [
            {"eval_time": f"{at}s", "alertname": name, "exp_alerts": alerts}
            for (at, name), alerts in expected.items()
        ],
    }
    told = {"rule_files": ["rules.yml"], "evaluation_interval": f"{interval}s", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(told))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    return "" if done.returncode == 0 else done.stdout + done.stderr


# Of each rule what goes wrong from the 20th scrape to the 29th, and nearly the same that does not.
STEADY, STILL = "0+50x59", "0x59"
AGAIN = "0x19 0+30x10 300x29"
LASTS = "0x19 1x9 0x30"
HANGS = "0+50x16 800x12 800+50x30"
CASES = {
    "RedisDown": (
        [redis("up", "1x19 0x9 1x30")],
        [redis("up", "1x19 0 1x19 _x9 1x8"), breaker(LASTS), errors("ConnectionError", STILL)],
        REDIS,
    ),
    "RedisDown, says the application": (
        [breaker(LASTS), errors("ConnectionError", AGAIN)],
        [breaker(STILL), errors("ConnectionError", AGAIN)],
        {"job": "cachelab", "cache": "users"},
    ),
    "RedisNotAnswering": (
        [up(REDIS, "1x19 0x9 1x30")],
        [up(REDIS, "1x19 0 0 1x37")],
        REDIS,
    ),
    "RedisNotAnswering, says the application": (
        [breaker(LASTS), errors("TimeoutError", AGAIN)],
        [breaker(STILL), errors("TimeoutError", AGAIN)],
        {"job": "cachelab", "cache": "users"},
    ),
    "RedisDown, says who has no exporter": (
        [answers("up", "1x19 0x9 1x30"), answers("timed_out", STILL)],
        [answers("up", "1x19 0x9 1x30"), answers("timed_out", LASTS)],  # frozen
        APP | {"server": "main"},
    ),
    "RedisNotAnswering, says who has no exporter": (
        [answers("up", "1x19 0x9 1x30"), answers("timed_out", LASTS)],
        [answers("up", "1x19 0x9 1x30"), answers("timed_out", "0x19 1 0x39")],  # killed
        APP | {"server": "main"},
    ),
    "WrongPassword": (
        [errors("AuthenticationError", AGAIN)],
        [errors("ConnectionError", AGAIN), errors("AuthenticationError", STILL)],
        {"job": "cachelab", "cache": "users"},
    ),
    "WritesRefused": (
        [errors("OutOfMemoryError", AGAIN)],
        [errors("OutOfMemoryError", "0x19 30x20 0x19")],  # once, and a restart
        {"job": "cachelab", "cache": "users"},
    ),
    "WritesRefused, says Redis": (
        [redis("errors_total", AGAIN, err="OOM")],
        [redis("errors_total", AGAIN, err="WRONGTYPE")],
        REDIS,
    ),
    "WritesRefused, says who has no exporter": (
        [series("cachelab_server_errors_total", APP | {"server": "main", "err": "OOM"}, AGAIN)],
        [series("cachelab_server_errors_total", APP | {"server": "main", "err": "ERR"}, AGAIN)],
        APP,
    ),
    "MemoryFull": (
        [
            redis("memory_used_bytes", "50x19 95x9 50x30"),
            redis("memory_max_bytes", "100x59"),
            redis("instance_info", "1x59", maxmemory_policy="noeviction"),
        ],
        [
            redis("memory_used_bytes", "50x19 100x40"),
            redis("memory_max_bytes", "100x59"),
            redis("instance_info", "1x59", maxmemory_policy="allkeys-lru"),
        ],
        REDIS,
    ),
    "HitRateCollapsed": (
        [reads("hit", "0+900x59"), loads("stored", "0+100x19 1900+4000x9 37900+100x30")],
        [reads("hit", "0+900x19 17100x40"), loads("stored", "0+100x19 1900x40")],  # idle
        {"job": "cachelab", "cache": "users"},
    ),
    "Stampede": (
        [
            series("cachelab_waits_total", USERS, "0x19 0+900x10 9000x29"),
            reads("miss", "0+100x19 1900+1000x9 10900+100x30"),
        ],
        [series("cachelab_waits_total", USERS, STEADY), reads("miss", "0+200x59")],
        {"job": "cachelab", "cache": "users"},
    ),
    "SlowDatabase, and no load ends": (
        [running("0x16 20x12 1x30"), series("cachelab_load_seconds_count", USERS, HANGS)],
        [running("0x59"), series("cachelab_load_seconds_count", USERS, HANGS)],  # nothing is read
        {"job": "cachelab", "cache": "users"},
    ),
    "SlowDatabase": (
        [
            series(
                "cachelab_load_seconds_bucket", USERS | {"le": "0.25"}, "0+50x19 950x9 950+50x30"
            ),
            series("cachelab_load_seconds_count", USERS, STEADY),
        ],
        [
            series("cachelab_load_seconds_bucket", USERS | {"le": "0.25"}, "0+45x19 855x40"),
            series("cachelab_load_seconds_count", USERS, "0+50x19 950x40"),  # no loads, no verdict
        ],
        {"job": "cachelab", "cache": "users"},
    ),
    "WriteBehindStuck": (
        [series("cachelab_writes_lag_seconds", APP | {"writes": "w"}, "0x19 10+15x9 0x30")],
        [series("cachelab_writes_lag_seconds", APP | {"writes": "w"}, "0x19 30x40")],
        {"job": "cachelab", "writes": "w"},
    ),
    "TargetDown": (
        [up(APP, "1x19 0x9 1x30")],
        [up(APP, "1x19 0 0 1x37")],
        APP,
    ),
}


@further
@needs_promtool
@pytest.mark.parametrize("case", CASES)
def test_promtool_finds_that_a_rule_fires_and_clears_and_not_without_its_cause(tmp_path, case):
    name, bad, (wrong, near, labels) = case.split(",")[0], 20, CASES[case]
    (rule,) = (one for one in rules(SCRAPE) if one.alert == name)
    at = {scrape: (scrape * SCRAPE, name) for scrape in (bad - 1, bad + 5, bad + 18)}
    expected = {at[bad - 1]: [], at[bad + 5]: [alert(rule, **labels)], at[bad + 18]: []}
    assert promtool(tmp_path, [rule], wrong, expected) == ""
    never = {(scrape * SCRAPE, name): [] for scrape in range(60)}
    assert promtool(tmp_path, [rule], near, never) == ""
    assert f"alertname: {name}" in promtool(tmp_path, [rule], wrong, never)  # it would be seen


class Simulated:
    """Two applications and a Redis whose days go badly at random, scrape by scrape.

    rows: (time, metric, labels, value), NaN where a series has gone stale.
    """

    MOODS = [
        *["well"] * 4,
        *["idle", "scan", "stampede", "slow", "full", "dead", "frozen", "refused", "stuck"],
        *["missed", "restarted"],
    ]

    def __init__(self, scrapes: int, seed: int):
        self.draw, self.rows, self.there = random.Random(seed), [], {}
        self.counts: dict = {}
        for app in ("app-1:8000", "app-2:8000", "redis"):
            self.live(app, scrapes)

    def live(self, app: str, scrapes: int) -> None:
        mood, left, lag = "well", 12, 0.0
        for scrape in range(scrapes):
            if left == 0:
                mood, left = self.draw.choice(self.MOODS), self.draw.randint(1, 9)
            left -= 1
            if mood == "restarted":
                self.counts[app] = {}
                mood = "well"
            lag = lag + SCRAPE if mood == "stuck" else self.draw.random()
            told = {} if mood == "missed" else self.told(app, mood, lag)
            if self.draw.random() < 0.9 or scrape == 0:  # else the scrape was not even tried
                self.note(scrape * SCRAPE, app, told)

    def note(self, time: float, app: str, told: dict) -> None:
        job = "redis" if app == "redis" else "cachelab"
        ours = {"job": job, "instance": app}
        told = {
            (name, text_of(dict(labels) | ours)): value for (name, labels), value in told.items()
        }
        gone = self.there.get(app, set()) - told.keys()
        self.there[app] = set(told)
        told |= dict.fromkeys(gone, math.nan) | {("up", text_of(ours)): float(bool(told))}
        self.rows += [(time, *one, value) for one, value in told.items()]

    def told(self, app: str, mood: str, lag: float) -> dict:
        if app == "redis":
            return self.of_redis(mood)
        gains = {"hit": 500.0, "stored": 50.0, "unstored": 0.0, "wait": 5.0, "fast": 50.0}
        gains |= {
            "idle": dict.fromkeys(gains, 0.0),
            "scan": {"stored": 3000.0, "fast": 3000.0},
        }.get(mood, {})
        gains |= {"stampede": {"wait": 900.0}, "slow": {"fast": 10.0}}.get(mood, {})
        if mood in ("dead", "frozen", "refused", "full"):
            gains |= {"hit": 0.0, "stored": 0.0, "unstored": 500.0, "fast": 500.0}
        if mood == "well":
            gains = {name: gain * self.draw.uniform(0.5, 1.5) for name, gain in gains.items()}
            gains["fast"] = gains["stored"] * self.draw.uniform(0.9, 1)
        loads = 50 if mood == "slow" else gains["stored"] + gains["unstored"]
        added = {
            ("cachelab_reads_total", (("outcome", "hit"),)): gains["hit"],
            ("cachelab_reads_total", (("outcome", "miss"),)): loads + gains["wait"],
            ("cachelab_loads_total", (("outcome", "stored"),)): gains["stored"],
            ("cachelab_loads_total", (("outcome", "unstored"),)): gains["unstored"],
            ("cachelab_loads_total", (("outcome", "absent"),)): gains["stored"] / 10,
            ("cachelab_waits_total", ()): gains["wait"],
            ("cachelab_load_seconds_bucket", (("le", "0.25"),)): min(gains["fast"], loads),
            ("cachelab_load_seconds_count", ()): loads,
        }
        kinds = {"dead": "Connection", "frozen": "Timeout", "refused": "Authentication"}
        for kind in ("Connection", "Timeout", "Authentication", "OutOfMemory"):
            is_it = kind == kinds.get(mood, "OutOfMemory" if mood == "full" else "")
            added["cachelab_errors_total", (("kind", f"{kind}Error"),)] = 30.0 * is_it
        told = {
            (name, (("cache", "users"), *labels)): value
            for (name, labels), value in self.grown(app, added).items()
        }
        is_open = float(mood in ("dead", "frozen", "refused"))
        told["cachelab_breaker_open", (("cache", "users"), ("server", "redis:6379"))] = is_open
        told["cachelab_writes_lag_seconds", (("writes", "w"),)] = lag
        return told

    def of_redis(self, mood: str) -> dict:
        added = {
            ("redis_errors_total", (("err", "OOM"),)): 30.0 * (mood == "full"),
            ("redis_keyspace_hits_total", ()): 500.0,
            ("redis_keyspace_misses_total", ()): 3000.0 if mood == "scan" else 50.0,
            ("redis_rejected_connections_total", ()): float(mood == "stampede"),
        }
        told = self.grown("redis", added)
        policy = "allkeys-lru" if mood == "idle" else "noeviction"
        return told | {
            ("redis_up", ()): float(mood not in ("dead", "refused")),
            ("redis_memory_used_bytes", ()): 95.0 if mood in ("full", "idle") else 50.0,
            ("redis_memory_max_bytes", ()): 0.0 if mood == "slow" else 100.0,
            ("redis_connected_clients", ()): {"stampede": 150.0, "stuck": 3.0}.get(mood, 20.0),
            ("redis_connected_slaves", ()): float(self.draw.random() < 0.9),
            ("redis_rdb_last_save_timestamp_seconds", ()): -90_000.0 * (mood == "stuck"),
            ("redis_instance_info", (("maxmemory_policy", policy), ("role", "master"))): 1.0,
        }

    def grown(self, app: str, added: dict) -> dict:
        counts = self.counts.setdefault(app, {})
        for name, gain in added.items():
            counts[name] = counts.get(name, 0.0) + round(gain)
        return dict(counts)

    @property
    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=COLUMNS)


def as_input(df: pd.DataFrame, scrape: float = SCRAPE) -> list[dict]:
    """The samples of a frame in the notation of promtool."""
    last = round(df["time"].max() / scrape)
    found = []
    for (metric, labels), group in df.groupby(["metric", "labels"]):
        told = dict(zip((group["time"] / scrape).round().astype(int), group["value"], strict=True))
        values = [told.get(at) for at in range(last + 1)]
        words = ["_" if v is None else "stale" if math.isnan(v) else repr(v) for v in values]
        found.append({"series": f"{metric}{{{labels}}}", "values": " ".join(words)})
    return found


def as_expected(tested, fired: pd.DataFrame, times) -> dict:
    """What fires by each evaluation, from when alerts began and ended."""
    expected = {}
    for rule in tested:
        mine = fired[fired["alert"] == rule.alert]
        for at in times:
            now = mine[(mine["begin"] <= at) & ~(mine["end"] <= at)]
            expected[at, rule.alert] = [
                alert(rule, **dict(labels_of(text))) for text in now["labels"]
            ]
    return expected


@further
@needs_promtool
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "copied"])
def test_rules_evaluated_here_fire_exactly_when_promtool_says_so(tmp_path, ours):
    tested = rules(SCRAPE) if ours else copied(SCRAPE)
    times = [SCRAPE * scrape for scrape in range(400)]
    df = Simulated(len(times), seed=1).frame
    intervals = firing(tested, df, times)
    expected = as_expected(tested, intervals, times)
    assert promtool(tmp_path, tested, as_input(df), expected) == ""
    first = intervals.iloc[0]
    missed = {(first["begin"], first["alert"]): []}
    assert promtool(tmp_path, tested, as_input(df), missed) != ""  # it would be seen
    never = {"RedisOutOfSystemMemory", "RedisDisconnectedSlaves"}  # no such series here
    assert set(intervals["alert"]) == {rule.alert for rule in tested} - never


@further
@needs_promtool
def test_every_expression_that_is_tried_here_means_the_same_to_promtool(tmp_path):
    tests = []
    for expr in test_rules.MEANS:
        said = holding(expr, test_rules.COUNTS, 7)
        samples = [
            {"labels": f"{metric}{{{labels}}}", "value": value}
            for metric, labels, value in said.itertuples(index=False, name=None)
        ]
        tests.append({"expr": expr, "eval_time": "7s", "exp_samples": samples})
    data = as_input(test_rules.COUNTS, scrape=1)
    told = {"interval": "1s", "input_series": data, "promql_expr_test": tests}
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"evaluation_interval": "1s", "tests": [told]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


DAY = 24 * 3600


def an_hour_of_health() -> list[dict]:
    """A day like others: a cold start, rush and idle minutes, a deployment, scrapes that fail.

    The server has been up for two days, saves nothing, evicts by LRU and is full, as a cache is.
    """
    draw, app = random.Random(0), Simulated(0, 0)
    for scrape in range(240):
        if scrape == 120:
            app.counts["app"] = {}  # a new version of the application
        mood = "well" if scrape // 30 != 2 else "idle"
        lag = draw.random()
        told = {} if scrape in (50, 121, 180) else app.told("app", mood, lag)
        if scrape < 3:
            told["cachelab_reads_total", (("cache", "users"), ("outcome", "hit"))] = 0.0
        app.note(scrape * SCRAPE, "app", told)
        hits = 10_000.0 + 300 * scrape
        redis = {
            ("redis_up", ()): 1.0,
            ("redis_memory_used_bytes", ()): 100.0,
            ("redis_memory_max_bytes", ()): 100.0,
            ("redis_connected_clients", ()): 4.0,
            ("redis_connected_slaves", ()): 0.0,
            ("redis_errors_total", (("err", "OOM"),)): 7.0,  # of long ago
            ("redis_keyspace_hits_total", ()): hits,
            ("redis_keyspace_misses_total", ()): hits / 2,  # two reads of three are enough here
            ("redis_rejected_connections_total", ()): 0.0,
            ("redis_rdb_last_save_timestamp_seconds", ()): -2.0 * DAY,
            ("redis_instance_info", (("maxmemory_policy", "allkeys-lru"), ("role", "master"))): 1.0,
        }
        app.note(scrape * SCRAPE, "redis", {} if scrape == 90 else redis)
    return as_input(app.frame)


@further
@needs_promtool
def test_an_hour_of_health_fires_none_of_ours_and_four_of_those_that_people_copy(tmp_path):
    hour, ours = an_hour_of_health(), rules(SCRAPE)
    never = {(scrape * SCRAPE, rule.alert): [] for rule in ours for scrape in range(240)}
    assert promtool(tmp_path, ours, hour, never) == ""
    wolf = {
        rule.alert
        for rule in copied(SCRAPE)
        if promtool(tmp_path, [rule], hour, {(3000, rule.alert): []})
    }
    assert wolf == {
        *("RedisMissingBackup", "RedisOutOfConfiguredMaxmemory"),
        *("RedisNotEnoughConnections", "RedisLowHitRate"),
    }


# The chain: one for each server, its faults one after the other.


@pytest.fixture(scope="module", params=[None, "redis-server"], ids=["valkey", "redis-server"])
def chain(request):
    if request.param and shutil.which(request.param) is None:
        pytest.skip("needs apt-get install redis-server")
    with Chain(scrape=1.0, binary=request.param) as chain:
        yield chain


on_valkey = pytest.mark.parametrize("chain", [None], ids=["valkey"], indirect=True)
# Of the copied rules, what cries for minutes after any fault, and at each scrape that fails: it is
# a missing master, too, that they see where a server is frozen.
WOLVES = {"RedisLowHitRate", "RedisMissingMaster"}
OF_THE_SERVER = ["killed", "frozen", "full", "scan"]  # what another server may take otherwise


def is_calm(chain) -> bool:
    """Say whether no condition of ours holds, not even for a moment."""
    alerts = chain.alerts()
    return not (alerts["group"] == "cachelab").any()


def fire(chain, fault: str) -> tuple[float, set[str], set[str]]:
    """Cause a fault until its alert fires; return after how long, what else fired, and of theirs.

    Two more seconds are for what would fire as well.
    """
    assert chain.wait_until(lambda: is_calm(chain), 60) < 60
    ours, theirs = set(), set()
    before = chain.firing("copied")

    def fires() -> bool:
        ours.update(chain.firing())
        theirs.update(chain.firing("copied") - before)
        return FAULTS[fault].alert in ours

    chain.cause(fault)
    try:
        took = chain.wait_until(fires, 30)
        chain.wait_until(lambda: fires() and False, 2)
    finally:
        chain.mend(fault)
    assert chain.wait_until(lambda: not chain.firing(), 30) < 30, f"{fault} does not clear"
    return took, ours, theirs


@further
@needs_chain
def test_every_fault_fires_its_alert_in_time_and_no_other_and_clears(chain):
    faults = list(FAULTS) if chain.binary is None else list(OF_THE_SERVER)
    random.Random(chain.server.port).shuffle(faults)  # another order each time
    in_time, noticed = (FOR + 3) * chain.scrape, set()
    for fault in faults:
        told = FAULTS[fault]
        for _ in range(3):  # a machine that stands still spoils one of them
            took, ours, theirs = fire(chain, fault)
            if took <= in_time and ours <= {told.alert, *told.also}:
                break
        print(f"{fault}: {took:.1f} s, {sorted(ours)}; copied: {sorted(theirs)}")
        assert took <= in_time, fault
        assert ours - told.also == {told.alert}, fault
        if theirs - WOLVES:
            noticed.add(fault)
    assert noticed <= {"killed", "full"}  # the control: what people copy names no other


@further
@needs_chain
@on_valkey
def test_a_minute_of_health_fires_none(chain):
    assert chain.wait_until(lambda: is_calm(chain), 60) < 60
    seen = set()
    chain.wait_until(lambda: seen.update(chain.firing()), 60)
    assert seen == set()


@further
@needs_chain
@on_valkey
def test_every_query_of_the_dashboard_has_an_answer(chain):
    empty = {panel: expr for panel, expr in queries(window="5s") if not len(chain.query(expr))}
    assert empty == {}
    assert not len(chain.query("cachelab_no_such_metric"))  # the control


@pytest.mark.parametrize("program", chain_of.PACKAGES)
def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch, program):
    here = {name: "/bin/true" for name in chain_of.PACKAGES} | {program: None}
    monkeypatch.setattr(chain_of.shutil, "which", here.get)
    chain = Chain()
    with pytest.raises(ServerError, match=f"apt-get install {chain_of.PACKAGES[program]}"):
        chain.check()
