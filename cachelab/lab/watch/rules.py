"""Alert rules as data: what each sees, for how long before it fires, and what to do then.

``python -m cachelab.lab.watch.rules > monitoring/rules.yml`` writes them for Prometheus.

Every window is a number of scrapes, so that one variable moves all of them. The rules ask for two
jobs: ``cachelab``, applications that serve `cachelab.metrics`, and ``redis``, redis_exporter with
its own timeout, which is longer than a scrape's: of a frozen server it then says nothing at all.
``python -m cachelab metrics`` does for those who have no exporter.

A rule comes with a row of CASES in tests/test_alerts.py, where promtool finds that it fires with
its cause, and not with what comes near, and with a fault in ``chain.py`` that is caused for real.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cachelab import _check

SCRAPE = 15.0  # seconds between two scrapes, where nobody says otherwise
WINDOW = 3  # scrapes that a rate looks back on: with one of them missed there still is a rate
FOR = 3  # scrapes for which a condition must hold: a single missed scrape is no alert
PAST = 240  # scrapes before those of WINDOW, whose median says what is usual: an hour
START = 10  # scrapes after which there is a past to compare with
SLOW = 0.25  # seconds above which a load is slow; a bound of a bucket of cachelab_load_seconds
SHARE_SLOW = 0.2  # of loads, above which the database is slow
SHARE_WAITING = 0.5  # of misses that wait for another read's load, above which they are a crowd
FEW = 1  # a second: what happens more rarely is no collapse and no crowd
FULL = 0.9  # of maxmemory

CRITICAL, WARNING = "critical", "warning"
AWESOME = "https://github.com/samber/awesome-prometheus-alerts (Redis, oliver006/redis_exporter)"
GUIDES = "many guides to redis_exporter, word for word"


@dataclass(frozen=True)
class Rule:
    """One alert.

    Attributes:
        alert: Its name.
        expr: The condition, in PromQL: what it returns has the alert.
        for_seconds: How long that must hold before the alert fires.
        severity: "critical" (somebody must act now) or "warning".
        summary: What is the matter, in a sentence.
        remedy: What to do.
        source: Where it was copied from, "" if it is ours.
    """

    alert: str
    expr: str
    for_seconds: float
    severity: str
    summary: str
    remedy: str = ""
    source: str = ""


def rules(scrape: float = SCRAPE, slow: float = SLOW) -> list[Rule]:
    """Return our rules for targets that are scraped every so many seconds.

    Args:
        scrape: Seconds between two scrapes; every window and every ``for`` is a multiple of it.
        slow: Seconds above which a load is slow: a bound of `cachelab.metrics.BUCKETS`.

    Raises:
        ValueError: A number is out of its range, or slow is no bound of a bucket.
    """
    from cachelab.metrics import BUCKETS

    scrape = _check.number("scrape", scrape, above=0, high=3600)
    slow = _check.choice("slow", slow, BUCKETS)
    window, past, step = (duration(count * scrape) for count in (WINDOW, PAST, 1))

    def rate(series: str) -> str:
        return f"sum by (job, cache) (rate({series}[{window}]))"

    def last(series: str) -> str:
        return f"last_over_time({series}[{window}])"

    def failing(kind: str) -> str:
        errors = rate(f'cachelab_errors_total{{kind="{kind}"}}')
        return f"{errors} > 0 and max by (job, cache) ({last('cachelab_breaker_open')}) == 1"

    hit, miss = 'cachelab_reads_total{outcome="hit"}', 'cachelab_reads_total{outcome="miss"}'
    stored = 'cachelab_loads_total{outcome=~"stored|absent"}'
    # Of the reads that Redis could answer: what failed or was refused is not stored, so that an
    # outage is no collapse. It counts minutes alike, however much is read in them.
    share = f"{rate(hit)} / ({rate(hit)} + {rate(stored)})"
    usual = f"quantile_over_time(0.5, ({share} >= 0)[{past}:{step}] offset {window})"
    then = f"sum by (job, cache) (rate({hit}[{window}] offset {duration(START * scrape)}))"
    waits, loads = "cachelab_waits_total", "cachelab_load_seconds_count"
    quick = f'cachelab_load_seconds_bucket{{le="{slow}"}}'
    password = 'cachelab_errors_total{kind=~"Authentication.*|NoPermissionError"}'
    full = 'cachelab_errors_total{kind="OutOfMemoryError"}'
    refused = '{__name__=~"(redis|cachelab_server)_errors_total",err="OOM"}'
    lag, server = "cachelab_writes_lag_seconds", "cachelab_server_"
    wait = FOR * scrape

    return [
        Rule(
            "RedisDown",
            f"{last('redis_up')} == 0 or {last(server + 'up')} == 0"
            f" and {last(server + 'timed_out')} == 0 or {failing('ConnectionError')}",
            wait,
            CRITICAL,
            "Nobody answers at the port of Redis, or the exporter is not let in.",
            "Is the process there, and at this address? Reads are served by the database "
            "meanwhile: watch its load. If only the exporter complains, look at its password.",
        ),
        Rule(
            "RedisNotAnswering",
            f'up{{job="redis"}} == 0 or {last(server + "timed_out")} == 1'
            f" or {failing('TimeoutError')}",
            wait,
            CRITICAL,
            "Redis takes connections and gives no answer in time, or the exporter does.",
            "Look for what holds the server up: a stopped process, swap, a long command "
            "(SLOWLOG), a fork. A restart loses what is not saved.",
        ),
        Rule(
            "WrongPassword",
            f"{rate(password)} > 0",
            wait,
            CRITICAL,
            "Redis refuses the user, the password or the rights of an application.",
            "Compare its URL with ACL LIST; ACL LOG names who was refused, and what.",
        ),
        Rule(
            "WritesRefused",
            f"{rate(full)} > 0 or sum by (job, instance) (rate({refused}[{window}])) > 0",
            wait,
            CRITICAL,
            "Redis is full and refuses writes: nothing new is cached.",
            "Look for big keys and keys without a TTL; give it a policy that evicts, or more "
            "memory.",
        ),
        Rule(
            "MemoryFull",
            f"{last('redis_memory_used_bytes')} / ({last('redis_memory_max_bytes')} > 0) > {FULL}"
            ' and on (job, instance) redis_instance_info{maxmemory_policy="noeviction"}',
            wait,
            WARNING,
            "A server that evicts nothing is almost full: soon it will refuse writes.",
            "A cache wants allkeys-lru or allkeys-lfu, under which it may be full; other data "
            "want more memory.",
        ),
        Rule(
            "HitRateCollapsed",
            f"{share} < 0.5 * {usual} and {rate(stored)} > {FEW} and {then} >= 0",
            wait,
            WARNING,
            "Of the reads that Redis answered, not half as many as usual were hits.",
            "Who reads what nobody reads twice (a scan, a crawler, a job)? Did keys, prefix or "
            "TTL change, was the cache emptied, is it too small (evictions)?",
        ),
        Rule(
            "Stampede",
            f"{rate(waits)} > {FEW} and {rate(waits)} > {SHARE_WAITING} * {rate(miss)}",
            wait,
            WARNING,
            "Most of the reads that miss wait for another read's load of the same id.",
            "Find the hot key. Is it invalidated at every turn, or slow to load? Refresh it "
            "ahead of time, or give it a longer TTL.",
        ),
        Rule(
            "SlowDatabase",
            f"{rate(quick)} < {1 - SHARE_SLOW} * {rate(loads)}"
            f" or sum by (job, cache) (min_over_time(cachelab_loads_running[{window}])) > 0"
            f" and {rate(loads)} == 0",
            wait,
            WARNING,
            f"More than {SHARE_SLOW:.0%} of the loads take longer than {slow:g} s, or none ends.",
            "Look at the database: locks, plans, connections. Does the cache shield it, or has "
            "the hit rate fallen as well?",
        ),
        Rule(
            "WriteBehindStuck",
            f"max by (job, writes) ({last(lag)}) > {scrape / 2:g}"
            f" and max by (job, writes) (delta({lag}[{window}])) > 0",
            wait,
            CRITICAL,
            "The oldest write that was put behind is not applied, and grows older.",
            "Do the workers live, and can they write to the database (locks, space)? "
            "XINFO GROUPS tells how much waits; nothing is lost as long as Redis keeps it.",
        ),
        Rule(
            "TargetDown",
            'up{job!="redis"} == 0',
            wait,
            CRITICAL,
            "A target does not answer its scrapes.",
            "Is the process there? What it would tell of its cache is missing meanwhile.",
        ),
    ]


def copied(scrape: float = SCRAPE) -> list[Rule]:
    """Return the twelve rules that people copy, as the control: they miss, and cry wolf.

    Their windows and waits are theirs at a scrape of 15 seconds, and move along with it.
    """
    scrape = _check.number("scrape", scrape, above=0, high=3600)
    minute = duration(4 * scrape)
    at_once, two, ten = 0.0, 8 * scrape, 40 * scrape
    slaves, rejected = "redis_connected_slaves", "redis_rejected_connections_total"
    used, clients = "redis_memory_used_bytes", "redis_connected_clients"
    hits, misses = "redis_keyspace_hits_total", "redis_keyspace_misses_total"
    masters = 'count(redis_instance_info{role="master"})'
    wide = "without (instance, job)"
    return [
        Rule(alert, expr, wait, severity, summary, source=source)
        for alert, expr, wait, severity, summary, source in [
            ("RedisDown", "redis_up == 0", at_once, CRITICAL, "Redis is down.", AWESOME),
            (
                "RedisMissingMaster",
                f"({masters} or vector(0)) < 1",
                *(at_once, CRITICAL, "No node is a master.", AWESOME),
            ),
            (
                "RedisDisconnectedSlaves",
                f"count {wide} ({slaves}) - sum {wide} ({slaves}) - 1 > 1",
                *(at_once, CRITICAL, "Not all replicas are connected.", AWESOME),
            ),
            (
                "RedisReplicationBroken",
                f"delta({slaves}[{minute}]) < 0",
                *(at_once, CRITICAL, "A replica was lost.", AWESOME),
            ),
            (
                "RedisClusterFlapping",
                f"changes({slaves}[{minute}]) > 1",
                *(two, CRITICAL, "Replicas come and go.", AWESOME),
            ),
            (
                "RedisMissingBackup",
                "time() - redis_rdb_last_save_timestamp_seconds > 60 * 60 * 24",
                *(at_once, CRITICAL, "No snapshot was saved for 24 hours.", AWESOME),
            ),
            (
                "RedisOutOfSystemMemory",
                f"{used} / redis_total_system_memory_bytes * 100 > 90",
                *(two, WARNING, "The machine's memory is nearly used up.", AWESOME),
            ),
            (
                "RedisOutOfConfiguredMaxmemory",
                f"{used} / redis_memory_max_bytes * 100 > 90",
                *(two, WARNING, "maxmemory is nearly used up.", AWESOME),
            ),
            (
                "RedisTooManyConnections",
                f"{clients} > 100",
                *(two, WARNING, "There are more than 100 connections.", AWESOME),
            ),
            (
                "RedisNotEnoughConnections",
                f"{clients} < 5",
                *(two, WARNING, "There are fewer than 5 connections.", AWESOME),
            ),
            (
                "RedisRejectedConnections",
                f"increase({rejected}[{minute}]) > 0",
                *(at_once, CRITICAL, "Connections were rejected.", AWESOME),
            ),
            (
                "RedisLowHitRate",
                f"{hits} / ({hits} + {misses}) < 0.8",
                *(ten, WARNING, "The hit rate is below 80 %.", GUIDES),
            ),
        ]
    ]


def as_yaml(rules: Sequence[Rule], name: str = "cachelab", note: str = "") -> str:
    """Return a rule file of Prometheus, one group with these rules.

    Args:
        rules: The rules.
        name: What the group is called.
        note: A comment for the first line.
    """
    lines = [f"# {note}"] if note else []
    lines += ["groups:", f"  - name: {name}", "    rules:"]
    for rule in rules:
        lines += [
            f"      - alert: {rule.alert}",
            f"        expr: {_quoted(rule.expr)}",
            f"        for: {duration(rule.for_seconds)}",
            "        labels:",
            f"          severity: {rule.severity}",
            "        annotations:",
            f"          summary: {_quoted(rule.summary)}",
        ]
        if rule.remedy:
            lines.append(f"          remedy: {_quoted(rule.remedy)}")
    return "\n".join([*lines, ""])


def duration(seconds: float) -> str:
    """Return seconds as Prometheus writes them.

    >>> duration(45), duration(0.5), duration(0)
    ('45s', '500ms', '0s')
    """
    ms = round(1000 * seconds)
    return f"{ms}ms" if ms % 1000 else f"{ms // 1000}s"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


NOTE = "Written by `python -m cachelab.lab.watch.rules`: change the rules there."

if __name__ == "__main__":
    sys.stdout.write(as_yaml(rules(), note=NOTE))
