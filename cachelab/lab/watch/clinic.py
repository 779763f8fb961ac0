"""The clinic: broken set-ups of one real program, and the questions that find what is wrong.

A patient is a program on a server of its own. What it does is the same in all of them, and so are
the questions, in their order: whether the commands arrive, how they travel, what they cost, what
becomes of the entries. `examine` asks them of any program and server.
"""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import pandas as pd
import redis

from cachelab import _check
from cachelab.clients import connect
from cachelab.lab.watch import observe
from cachelab.lab.watch.patients import Setup
from cachelab.server.server import Server

DELETES = ("del", "getdel", "unlink")
REQUESTS = 400
SAMPLE = 3000  # keys
SLOW_USEC = 500  # from which on a patient's server notes a command
PATIENCE = 10.0  # seconds for a call: the clinic's machine may be busy
OURS = ("auth", "command", "hello", "info", "quit", "select")  # no program's work


@dataclass(frozen=True)
class Evidence:
    """What a program and its server counted while some requests were served.

    Attributes:
        view: What the program saw: requests, workers, calls (commands that it meant to send),
            errors ({kind: count}), waits (seconds, one a request), loads; what it does not know
            is absent.
        seconds: That the requests took.
        grown: {name: change} of INFO's numbers.
        now: {name: value} of INFO afterwards.
        commands: What each command cost meanwhile, as `observe.since`.
        keys: A sample, as `observe.hot_keys`.
    """

    view: Mapping[str, Any]
    seconds: float
    grown: Mapping[str, float]
    now: Mapping[str, Any]
    commands: pd.DataFrame
    keys: pd.DataFrame

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the frames to look at: waits, commands, big, hot, prefixes."""
        return {
            "waits": self._waits(),
            "commands": self.commands,
            "big": self.keys.sort_values("bytes", ascending=False, ignore_index=True).head(10),
            "hot": self.keys.head(10),
            "prefixes": observe.by_prefix(self.keys),
        }

    def _waits(self) -> pd.DataFrame:
        """Return how long a request waited, and for each what it had loaded and executed.

        loads: from the database; commands, server_ms: that they ran; all on average.
        """
        waits = observe.percentiles({"a request": self.view.get("waits", [])})
        served = self.view["requests"]
        return waits.assign(
            loads=self.view.get("loads", math.nan) / served,
            commands=self.work["calls"].sum() / served,
            server_ms=self.work["usec"].sum() / 1000 / served,
        )

    @property
    def work(self) -> pd.DataFrame:
        """The commands without those that open a connection, and the clinic's own."""
        return self.commands[~self.commands["command"].isin(OURS)]

    @property
    def hit_rate(self) -> float | None:
        return observe.hit_rate(None, self.grown)

    @property
    def forgets(self) -> bool:
        rate = self.hit_rate
        return rate is not None and rate < 0.5

    @property
    def stores(self) -> float:
        """How many commands were to store an entry."""
        stores = self.work["command"].str.contains("^(?:set|setex|psetex|mset|hset|getset)$")
        return float(self.work.loc[stores, ["calls", "rejected"]].to_numpy().sum())


Answer = tuple[float | None, str]  # the number, None where there is none, and what to know of it


@dataclass(frozen=True)
class Question:
    """One of the questions, which are asked in their order.

    Attributes:
        text: The question.
        usual: What the number is in a program that is well.
        ask: Evidence to number and remark.
        is_odd: Whether a number is not as usual.
        look: Where to look next.
    """

    text: str
    usual: str
    ask: Callable[[Evidence], Answer]
    is_odd: Callable[[float], bool]
    look: str


def _arrives(seen: Evidence) -> Answer:
    sent = seen.view.get("calls")
    came = int(seen.work["calls"].sum() + seen.work["rejected"].sum())
    return (came / sent, f"{sent:,} sent, {came:,} arrived") if sent else (None, "it does not say")


def _refused(seen: Evidence) -> Answer:
    errors = dict(seen.view.get("errors", {}))
    server = int((seen.work["rejected"] + seen.work["failed"]).sum())
    refused = max(sum(errors.values()), server) + int(seen.grown.get("rejected_connections", 0))
    total = seen.work["calls"].sum() + seen.work["rejected"].sum()
    said = ", ".join(f"{kind} {count:,}" for kind, count in errors.items())
    return 100 * refused / max(total, 1), said or "no errors"


def _connections(seen: Evidence) -> Answer:
    opened = int(seen.grown["total_connections_received"])
    return opened / seen.view["requests"], f"{opened:,} opened"


def _sharing(seen: Evidence) -> Answer:
    if not (workers := seen.view.get("workers")):
        return None, "it does not say how many work at once"
    open_now = max(1, seen.now["connected_clients"] - 1)  # the clinic's own is one
    most = max(open_now, min(workers, int(seen.grown["total_connections_received"])))
    return workers / most, f"{workers} workers, {most} connections"


def _trips(seen: Evidence) -> Answer:
    reads = max(seen.grown["total_reads_processed"] - 1, 1)
    each = seen.work["calls"].sum() / reads
    return reads / seen.view["requests"], f"{each:.2g} commands a trip"


def _bytes(seen: Evidence) -> Answer:
    biggest = seen.keys.loc[seen.keys["bytes"].idxmax()] if len(seen.keys) else None
    said = "no keys" if biggest is None else f"biggest: {biggest['key']}, {biggest['bytes']:,.0f} B"
    calls = max(seen.work["calls"].sum(), 1)
    return seen.grown["total_net_output_bytes"] / calls / 1000, said


def _dearest(seen: Evidence) -> Answer:
    if not len(seen.work) or seen.work["p50_usec"].isna().all():
        return None, "the server keeps no percentiles"
    row = seen.work.loc[seen.work["p50_usec"].idxmax()]
    return row["p50_usec"], f"{row['command']}, {row['share']:.0%} of the server's time"


def _hottest(seen: Evidence) -> Answer:
    if not len(seen.keys) or seen.keys["reads"].isna().all():
        return None, "no LFU policy: the server does not count"
    hottest = seen.keys.iloc[0]
    # Keys that have gone are in no sample: what was used meanwhile is known without.
    read = seen.grown["keyspace_hits"] + seen.grown["keyspace_misses"]
    uses = max(seen.keys["reads"].sum(), read, seen.work["calls"].sum(), 1)
    return hottest["reads"] / uses, f"most: {hottest['key']}"


def _replaced(seen: Evidence) -> Answer:
    policy = str(seen.now.get("maxmemory_policy", "unknown"))
    if not policy.endswith("-lru"):
        return None, f"policy {policy}"
    held = max(1, seen.now.get("db0.keys", 0))
    evicted = seen.grown["evicted_keys"]
    return evicted / held / seen.seconds, f"{evicted:,.0f} evicted, {held:,} held"


def _hits(seen: Evidence) -> Answer:
    hits, misses = (seen.grown[f"keyspace_{what}"] for what in ("hits", "misses"))
    rate = seen.hit_rate
    said = "nothing was read" if rate is None else f"{hits:,.0f} hits, {misses:,.0f} misses"
    deletes = seen.work["command"].isin(DELETES)
    if seen.forgets and (count := seen.work.loc[deletes, "calls"].sum()):
        said += f", {count:,} deletes"
    return rate, said


def _share(name: str) -> Callable[[Evidence], Answer]:
    """Ask what share of the stores came to an end, where too little is found."""

    def ask(seen: Evidence) -> Answer:
        if not seen.forgets:
            return None, "what is read is found"
        if not seen.stores:
            return None, "nothing was stored"
        share = min(1.0, seen.grown.get(name, 0) / seen.stores)  # some were stored before
        return share, f"{seen.stores:,.0f} stored"

    return ask


def _immortal(seen: Evidence) -> Answer:
    if not len(seen.keys):
        return None, "no keys"
    return seen.keys["ttl"].isna().mean(), f"of a sample of {len(seen.keys):,} keys"


QUESTIONS = {
    "arrives": Question(
        "What share of the commands that the program sends arrives?",
        "1",
        _arrives,
        lambda number: number < 0.9,
        "what the program calls, beside `commands`: which command is missing?",
    ),
    "refused": Question(
        "Of a hundred commands, how many are refused or fail?",
        "0",
        _refused,
        lambda number: number > 0.5,
        "the kind of the error, then `commands` (rejected) and `observe.memory(p.client)`",
    ),
    "connections": Question(
        "How many connections does a request open?",
        "0",
        _connections,
        lambda number: number > 0.2,
        "`commands`: how many hello and auth are there for each page?",
    ),
    "sharing": Question(
        "How many workers share a connection?",
        "1 or 2",
        _sharing,
        lambda number: number > 4,
        "`waits`: a request waits far longer than its commands run. What for?",
    ),
    "trips": Question(
        "How many trips to the server does a request make?",
        "1 to 5",
        _trips,
        lambda number: number > 8,
        "how many commands travel together, and `waits`",
    ),
    "bytes": Question(
        "How many kB does the server send for a command?",
        "up to 5",
        _bytes,
        lambda number: number > 8,
        "`big`: which key weighs most, and who needs all of it?",
    ),
    "dearest": Question(
        "How many microseconds does the dearest command take (median)?",
        "up to 50",
        _dearest,
        lambda number: number > 100,
        "`commands` and `observe.slow(p.client)`: what does that command look through?",
    ),
    "hottest": Question(
        "What share of the uses is of one key?",
        "up to 0.1",
        _hottest,
        lambda number: number > 0.3,
        "`hot`, and how many commands there are for each request in `commands`",
    ),
    "replaced": Question(
        "How often is all that is cached replaced while LRU's clock ticks once, in a second?",
        "up to 0.3",
        _replaced,
        lambda number: number > 0.5,
        "keys(p.client)['idle']: how many different ages can the policy see?",
    ),
    "hits": Question(
        "What share of the reads finds its key?",
        "above 0.5",
        _hits,
        lambda number: number < 0.5,
        "the three questions below: what has become of what was stored? Where none is odd, "
        "`commands`: is it deleted at once, or stored by many who missed it together?",
    ),
    "expired": Question(
        "If few: what share of the entries stored has expired again?",
        "below 0.5",
        _share("expired_keys"),
        lambda number: number > 0.5,
        "`observe.keys(p.client)['ttl']`: how long do entries have, and how often is each read?",
    ),
    "evicted": Question(
        "If few: what share of the entries stored has pushed another one out?",
        "below 0.5",
        _share("evicted_keys"),
        lambda number: number > 0.5,
        "`observe.memory(p.client)`: the limit, and what the entries weigh in `prefixes`",
    ),
    "added": Question(
        "If few: what share of the entries stored is one key more than before?",
        "below 0.5",
        _share("db0.keys"),
        lambda number: number > 0.5,
        "names in `big`: which parts of a name repeat from one request to the next?",
    ),
    "immortal": Question(
        "What share of the keys never expires?",
        "up to 0.1",
        _immortal,
        lambda number: number > 0.5,
        "`prefixes`, and the limit in `observe.memory(p.client)`",
    ),
}


@dataclass(frozen=True)
class Cause:
    """What can be wrong: the question that tells it, and what mends it."""

    question: str
    cures: tuple[str, ...]


CURES: dict[str, Callable[[Setup], Setup]] = {
    "await the coroutine": lambda setup: replace(setup, awaits=True),
    "let any key be evicted": lambda setup: replace(setup, policy="allkeys-lfu"),
    "let each entry expire": lambda setup: replace(setup, ttl=setup.ttl or 600),
    "give the expiry in seconds": lambda setup: replace(setup, unit="s"),
    "keep one client for all requests": lambda setup: replace(setup, is_shared=True),
    "open a connection for each worker": lambda setup: replace(setup, pool=Setup.pool),
    "send more commands in a pipeline": lambda setup: replace(setup, batch=Setup.batch),
    "store only what the page shows": lambda setup: replace(setup, menu_bytes=Setup.menu_bytes),
    "keep the names, ask for no pattern": lambda setup: replace(setup, is_indexed=True),
    "keep that value in the process": lambda setup: replace(setup, keeps_rates=True),
    "let the test take longer": lambda setup: replace(setup, seconds=5.0),
    "name an entry by what it holds": lambda setup: replace(setup, names_repeat=True),
    "give the server more memory": lambda setup: replace(setup, room_kb=0),
}

CAUSES = {
    "a coroutine that nobody awaits": Cause("arrives", ("await the coroutine",)),
    "full, and nothing may be evicted": Cause(
        "refused", ("let any key be evicted", "let each entry expire")
    ),
    "a client for every request": Cause("connections", ("keep one client for all requests",)),
    "too few connections in the pool": Cause("sharing", ("open a connection for each worker",)),
    "a round trip for every command": Cause("trips", ("send more commands in a pipeline",)),
    "a value that is too big": Cause("bytes", ("store only what the page shows",)),
    "a command that looks through all keys": Cause(
        "dearest", ("keep the names, ask for no pattern",)
    ),
    "one key that everybody reads": Cause("hottest", ("keep that value in the process",)),
    "a test that is over before LRU's clock ticks": Cause(
        "replaced", ("let the test take longer",)
    ),
    "entries that expire too soon": Cause("expired", ("give the expiry in seconds",)),
    "too little memory for what is read": Cause("evicted", ("give the server more memory",)),
    "names that never come again": Cause("added", ("name an entry by what it holds",)),
    "entries that never expire": Cause("immortal", ("let each entry expire",)),
}


@dataclass(frozen=True)
class Case:
    """A broken set-up: what its users say, what it is, and what only the clinic knows."""

    symptom: str
    setup: Setup
    cause: str = field(repr=False)


_FULL = Setup(6, policy="volatile-lru", ttl=None, room_kb=6000, archive=8000)
_HURRIED = Setup(8, policy="allkeys-lru", shelves=50, passing=5, room_kb=1500)

CASES = {
    1: Case(
        "Every page takes ten times as long as it should. The server's processor is idle.",
        Setup(1, batch=1),
        "a round trip for every command",
    ),
    2: Case(
        "The cache went live on Monday. The database has not noticed.",
        Setup(2, awaits=False),
        "a coroutine that nobody awaits",
    ),
    3: Case(
        "All pages have become slower since last year's orders are kept as well. "
        "No page shows an order.",
        Setup(3, is_indexed=False, archive=30_000),
        "a command that looks through all keys",
    ),
    4: Case(
        "Alone each visitor is served at once. When sixteen come together, all of them wait.",
        Setup(4, pool=1),
        "too few connections in the pool",
    ),
    5: Case(
        "The server needs more memory every week. The shop sells what it has always sold.",
        Setup(5, passing=5, ttl=None),
        "entries that never expire",
    ),
    6: Case(
        "Every page is right, and the program's log is full of errors.",
        _FULL,
        "full, and nothing may be evicted",
    ),
    7: Case(
        "The network is at its limit, though a page has no more parts than it used to have.",
        Setup(7, menu_bytes=200_000),
        "a value that is too big",
    ),
    8: Case(
        "Our test of allkeys-lru found that it throws away products that are asked for again and "
        "again, as often as what nobody asks for twice.",
        _HURRIED,
        "a test that is over before LRU's clock ticks",
    ),
    9: Case(
        "A page waits for the server three times, as it seems, for one answer.",
        Setup(9, is_shared=False),
        "a client for every request",
    ),
    10: Case(
        "The server executes four times as many commands as the pages have parts. "
        "With another server beside it the load stayed where it was.",
        Setup(10, keeps_rates=False),
        "one key that everybody reads",
    ),
    # For the exam: none of the ten, and found by the same questions.
    11: Case(
        "The cache has been well for a year. Since the last release it is hardly ever of use.",
        Setup(11, shelves=200, ttl=20, unit="ms"),
        "entries that expire too soon",
    ),
    12: Case(
        "Nothing is found in the cache any more, and the number of keys grows by the minute.",
        Setup(12, names_repeat=False),
        "names that never come again",
    ),
    13: Case(
        "The more products the shop has, the less the cache helps.",
        Setup(13, shelves=200, room_kb=600),
        "too little memory for what is read",
    ),
}
TAUGHT = range(1, 11)
EXAM = range(11, 14)


class Patient:
    """A program with a broken set-up, on a server of its own, until ``stop()`` or the block's end.

    It ends with the process that started it, however that ends.

    Args:
        number: Of the case, 1 to 13; the last three are for an exam.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.symptom = CASES[number].symptom
        self._case = CASES[number]
        self._setup = self._case.setup
        self._lock = threading.Lock()
        self._program: subprocess.Popen[str] | None = None
        self._server: Server | None = None
        self._client: redis.Redis | None = None
        self._evidence: Evidence | None = None
        self._sick: Evidence | None = None

    def start(self) -> Self:
        """Start program and server anew, as ill as at first, and return the patient."""
        self.stop()
        self._program = subprocess.Popen(
            [sys.executable, "-m", "cachelab.lab.watch.patients"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may complain of a coroutine
            text=True,
            start_new_session=True,  # the Interrupt button ends a cell, not the patient
        )
        try:
            self._begin(self._case.setup)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End program and server."""
        if self._program is not None:
            program, self._program = self._program, None
            _end(program)
        self._end_server()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Patient {self.number}: {self.symptom}>"

    @property
    def client(self) -> redis.Redis:
        """A client of the patient's server."""
        if self._client is None:
            how = "call start(), or use it in a with statement"
            raise RuntimeError(f"patient {self.number} is not here: {how}")
        return self._client

    def serve(self, requests: int = REQUESTS) -> dict[str, Any]:
        """Let the program serve so many requests, and return what it saw of it."""
        requests = _check.whole("requests", requests, least=1, most=1_000_000)
        with self._lock:
            return self._order(str(requests))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let the program serve without a pause, in the background, as for a live chart."""
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                self.serve(100)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def observe(self, requests: int = REQUESTS) -> Evidence:
        """Let the program serve so many requests, and return what it and its server counted."""
        self._evidence = examine(self.client, lambda: self.serve(requests))
        return self._evidence

    @property
    def evidence(self) -> Evidence:
        """What the last `observe` found; the first is made now if there was none."""
        return self._evidence or self.observe()

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the frames of the last observation: waits, commands, big, hot, prefixes."""
        return self.evidence.frames()

    def questions(self) -> pd.DataFrame:
        """Return the answers to all questions, of the last observation: since a cure, of that."""
        return questions(self.evidence)

    def cure(self, name: str) -> pd.DataFrame:
        """Start program and server anew, with one thing changed, and ask all questions again.

        Args:
            name: One of CURES. It is done whether it helps or not.

        Returns:
            The frame (question, usual, before, after).
        """
        _check.choice("name", name, tuple(CURES))
        before = questions(self._broken())
        self._begin(CURES[name](self._case.setup))
        after = questions(self.observe())
        frame = before[["question", "usual"]].copy()
        frame["before"], frame["after"] = before["number"], after["number"]
        return frame

    def _broken(self) -> Evidence:
        """Return what was observed before any cure."""
        if self._sick is None or self._setup == self._case.setup:
            self._sick = self.evidence
        return self._sick

    def _begin(self, setup: Setup) -> None:
        """Start a set-up on a server of its own, in place of the one before."""
        self._end_server()
        self._setup = setup
        self._server = Server(
            maxmemory_policy=setup.policy, slowlog_log_slower_than=SLOW_USEC
        ).start()
        self._client = connect(self._server.url, timeout=PATIENCE)
        with self._lock:
            self._order(json.dumps(asdict(setup) | {"url": str.__str__(self._server.url)}))

    def _end_server(self) -> None:
        if self._client is not None:
            self._client.connection_pool.disconnect()
        if self._server is not None:
            self._server.stop()
        self._client = self._server = self._evidence = None

    def _order(self, line: str) -> dict[str, Any]:
        """Send an order, and return the answer; who is interrupted meanwhile ends the program."""
        assert self.client is not None  # it says so where there is none
        program = self._program
        assert program and program.stdin and program.stdout
        try:
            program.stdin.write(line + "\n")
            program.stdin.flush()
            said = program.stdout.readline()
        except BrokenPipeError:
            said = ""
        except BaseException:
            program.kill()
            raise
        if not said:
            raise RuntimeError(f"the program of patient {self.number} has ended: start() it anew")
        told: dict[str, Any] = json.loads(said)
        return told


def _end(program: "subprocess.Popen[str]") -> None:
    program.kill()
    program.wait()
    for pipe in (program.stdin, program.stdout):
        with suppress(BrokenPipeError):  # what was to be sent
            if pipe:
                pipe.close()


def patient(number: int) -> Patient:
    """Return one of the patients; its program and server run inside a block, or from start() on.

    Args:
        number: 1 to 10; 11 to 13 are for an exam.
    """
    return Patient(_check.whole("number", number, least=1, most=max(CASES)))


def examine(client: redis.Redis, serve: Callable[[], Mapping[str, Any]]) -> Evidence:
    """Let a program work, and return what it and its server counted meanwhile.

    Args:
        client: Of the server; the commands and connections of all its clients count.
        serve: Serves some requests and returns what the program saw: requests, and where it knows
            them workers, calls, errors, waits, loads, as in `Evidence`.
    """
    before, was = observe.values(client), observe.commands(client)
    began = time.monotonic()
    view = serve()
    seconds = time.monotonic() - began
    now = observe.values(client)
    commands = observe.since(was, observe.commands(client))
    grown = observe.change(before, now)
    grown["db0.keys"] = max(0, now.get("db0.keys", 0) - before.get("db0.keys", 0))
    keys = observe.hot_keys(client, sample=SAMPLE, top=SAMPLE)
    return Evidence(view, seconds, grown, now, commands, keys)


def questions(evidence: Evidence) -> pd.DataFrame:
    """Ask everything, in the order in which the answers are to be read.

    The first number that is far from usual leads to the cause: what comes later often follows.

    Returns:
        The tidy frame (question, number, usual, remark); number is NaN where there is none, and
        remark says why.
    """
    rows = []
    for one in QUESTIONS.values():
        number, remark = one.ask(evidence)
        rows.append((one.text, math.nan if number is None else number, one.usual, remark))
    return pd.DataFrame(rows, columns=["question", "number", "usual", "remark"])


def odd(evidence: Evidence) -> list[str]:
    """Return the names of the questions whose numbers are not as usual, in order."""
    answers = {name: one.ask(evidence)[0] for name, one in QUESTIONS.items()}
    return [
        name
        for name, number in answers.items()
        if number is not None and QUESTIONS[name].is_odd(number)
    ]


def hint(patient: Patient, step: int) -> str:
    """Return a hint that says more with each step: where to look, which question, what to do next.

    Args:
        patient: Who is ill.
        step: 1, 2 or 3.
    """
    step = _check.whole("step", step, least=1, most=3)
    name = CAUSES[patient._case.cause].question
    at = list(QUESTIONS).index(name)
    if step == 1:
        part = "program and its connections" if at < 5 else "commands" if at < 8 else "entries"
        return f"Go down the questions and stop at the first odd number: it is about the {part}."
    if step == 2:
        one = QUESTIONS[name]
        return f"{one.text} Usual is {one.usual}."
    return f"Look at {QUESTIONS[name].look}"


def diagnose(
    patient: Patient, cause: str | None, cure: str | None
) -> dict[str, Callable[[], bool]]:
    """Return {sentence: callable} as `exercise.check` takes them, with a ``limit`` of 60 seconds.

    The cure is really tried: on a program and a server that start anew.

    Args:
        patient: Who is ill, and has been started.
        cause: One of CAUSES, None as long as nobody knows.
        cure: One of CURES, or None.

    Raises:
        ValueError: There is no such cause or cure.
    """
    _check.choice("cause", cause, (None, *CAUSES))
    _check.choice("cure", cure, (None, *CURES))
    ill = CAUSES[patient._case.cause]
    sick = patient._broken()

    def is_the_cause() -> bool:
        if cause is None:
            raise AssertionError("no cause is named")
        if cause != patient._case.cause:
            raise AssertionError(_against(sick, CAUSES[cause].question))
        return True

    def is_cured() -> bool:
        if cure is None:
            raise AssertionError("no cure is named")
        patient.cure(cure)
        if ill.question in odd(patient.evidence):
            known = cause == patient._case.cause  # who has not found it is not told it here
            told = _told(patient.evidence, ill.question)
            raise AssertionError(told if known else "the first odd number still is odd")
        if cure not in ill.cures:
            raise AssertionError("the number is as usual for now, the cause is still there")
        return True

    return {"that is the cause": is_the_cause, "with that cure the number is usual": is_cured}


def _against(sick: Evidence, question: str) -> str:
    """Say what speaks against a cause: its own number, or one that comes before."""
    if question in odd(sick):
        return "its number is odd, and another one is before it"
    return f"its number is as usual. {_told(sick, question)}"


def _told(seen: Evidence, question: str) -> str:
    number, remark = QUESTIONS[question].ask(seen)
    shown = "no number" if number is None else f"{number:.3g}"
    return f"{QUESTIONS[question].text} {shown} ({remark})"
