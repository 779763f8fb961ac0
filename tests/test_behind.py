"""Write-behind: acknowledged means applied once, in order, whoever is killed or stopped meanwhile.

Workers live in forked children, which are killed or stopped at points around the read, COMMIT and
XACK. What is counted are effects: each write of a row leaves one line in a table of its own.
"""

import asyncio
import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial

import pytest
import redis
from conftest import Awaited
from sqlalchemy import text
from test_database import POSTGRES, sql, without_postgres

import cachelab as cl
from cachelab.errors import RedisUnavailable, WritesFull, WriteUncertain
from cachelab.lab.contract.child import Child
from cachelab.writes import AsyncWriteBehind, Worker, WriteBehind
from cachelab.writes.rows import is_away
from cachelab.writes.stream import CLAIM, UNCOUNT, entries

PATIENCE = 60  # seconds: a bound for the busiest machine
POINTS = ["before COMMIT", "after COMMIT", "before XACK", "after XACK"]
STREAM = "{writes}:stream"


@pytest.fixture
def db(tmp_path):
    with cl.UserDatabase(f"sqlite:///{tmp_path}/rows.db", latency=0) as db:
        yield db


@pytest.fixture(params=["sync", "async"])
def make_writes(request, server, client):
    """A function that makes a producer of either kind, whose calls block."""
    made = []

    def make(url: str = server.url, timeout: float = 10, **options):
        if request.param == "sync":
            return WriteBehind(cl.connect(url, check=False, timeout=timeout), **options)
        made.append(Awaited(url, timeout, AsyncWriteBehind, **options))
        return made[-1]

    yield make
    for writes in made:
        writes.close()


@pytest.fixture
def writes(client, server, db):
    return WriteBehind(cl.connect(server.url, timeout=10), load=db.get, max_length=100_000)


@pytest.fixture
def make_worker(server, client, db):
    def make(database=db, **options):
        return Worker(cl.connect(server.url, timeout=10), database, **options)

    return make


def drained(worker: Worker, writes, seconds: float = PATIENCE) -> None:
    """Have a worker work until the stream is empty."""
    until = time.monotonic() + seconds
    while writes.length():
        assert time.monotonic() < until, f"{writes.length()} are left: {worker.stats}"
        with suppress(StopIteration):
            worker.step(0.02)


def emptied(writes) -> None:
    """Wait until others have emptied the stream."""
    until = time.monotonic() + PATIENCE
    while writes.length():
        assert time.monotonic() < until
        time.sleep(0.01)


def records(db) -> dict[str, str]:
    """Return the outcome of each message that the database remembers."""
    rows = sql(db.url, "SELECT message_id, outcome FROM cachelab_applied")
    assert len({message_id for message_id, _ in rows}) == len(rows)
    return dict(rows)


# The producer.


def test_a_put_returns_when_the_stream_has_it_and_is_read_at_once(make_writes, client):
    writes = make_writes(load=lambda id: f"row of {id}")
    message = writes.put("ada", {"name": "Ada"})
    assert client.xrange(STREAM) == [(message, {"id": "ada", "value": '{"name":"Ada"}'})]
    assert (writes.get("ada"), writes.pending("ada")) == ({"name": "Ada"}, message)
    assert (writes.get("bob"), writes.pending("bob")) == ("row of bob", None)
    assert (writes.length(), writes.stats.acknowledged) == (1, 1)


def test_a_writer_reads_its_latest_write_a_delete_included(make_writes, make_worker, db):
    db.put("ada", "old")
    writes = make_writes(load=db.get)
    seen = [writes.get("ada")]
    for value in ("new", None, "newer"):
        writes.put("ada", value)
        seen.append(writes.get("ada"))
    assert seen == ["old", "new", None, "newer"] and db.get("ada") == "old"
    drained(make_worker(), writes)
    assert (writes.pending("ada"), writes.get("ada"), db.get("ada")) == (None, "newer", "newer")


def test_puts_and_deletes_of_an_id_are_applied_in_their_order(make_writes, make_worker, db):
    writes = make_writes()
    for id, values in {"a": ["1", None], "b": [None, "2"], "c": ["1", None, "3"]}.items():
        for value in values:
            writes.put(id, value)
    drained(make_worker(batch=2), writes)
    assert [db.get(id) for id in "abc"] == [None, "2", "3"]
    assert len(records(db)) == 7


def test_what_is_pending_of_one_writer_another_reads_and_a_cache_has_it_afterwards(
    server, writes, make_worker, db
):
    client = cl.connect(server.url, timeout=10)
    users = cl.CacheAside(client, load=db.get, ttl=60)
    db.put("ada", "old")
    assert users.get("ada") == "old"
    other = WriteBehind(client, cache=users)
    writes.put("ada", "new")
    assert (other.get("ada"), users.get("ada")) == ("new", "old")
    drained(make_worker(cache=users), writes)
    assert (other.get("ada"), users.get("ada")) == ("new", "new")
    writes.put("ada", "newest")
    drained(make_worker(), writes)
    assert users.get("ada") == "new"  # the control: a worker that tells no cache


def test_a_put_that_is_sent_again_is_recorded_once(writes, client):
    stream = writes._producer.stream
    command = stream.put("ada", '"1"', 10)
    first, again = stream.send(command)[0], stream.send(command)[0]
    assert first == again and writes.length() == 1
    stream.send(stream.put("ada", '"1"', 10))  # the control: what does not know it again
    assert writes.length() == 2


def test_a_full_stream_refuses_and_drops_nothing(make_writes, client):
    writes = make_writes(max_length=3)
    kept = [writes.put(f"user-{n}", n) for n in range(3)]
    with pytest.raises(WritesFull, match=r"'user-3'.*'writes' has held 3 .*max_length"):
        writes.put("user-3", 3)
    assert [message for message, _ in client.xrange(STREAM)] == kept
    assert (writes.pending("user-3"), writes.stats.refused) == (None, 1)
    client.xadd("capped", {"n": 1}, maxlen=3, approximate=False)
    for n in range(9):  # the control: a capped stream takes all, and forgets
        client.xadd("capped", {"n": n}, maxlen=3, approximate=False)
    assert client.xlen("capped") == 3


def test_a_put_waits_for_room_as_long_as_it_may(make_writes, make_worker, db):
    writes = make_writes(max_length=1, max_wait=PATIENCE)
    writes.put("ada", "1")
    waiting = threading.Thread(target=writes.put, args=("ada", "2"))
    waiting.start()
    worker = make_worker()
    while waiting.is_alive():
        worker.step(0.02)
    waiting.join()
    drained(worker, writes)
    assert db.get("ada") == "2" and writes.stats.refused == 0
    impatient = make_writes(max_length=1, max_wait=0.05)
    impatient.put("ada", "3")
    with pytest.raises(WritesFull, match=r"for 0\.05 s \(max_wait\)"):
        impatient.put("ada", "4")


def test_fewer_copies_than_asked_for_are_named_with_the_message(make_writes, client):
    writes = make_writes(replicas=1, wait_timeout=0.05)
    with pytest.raises(WriteUncertain, match=r"recorded as \d+-\d+.* 0 of 1 replicas") as caught:
        writes.put("ada", "1")
    assert client.xrange(STREAM)[0][0] == caught.value.message_id == writes.pending("ada")
    assert writes.stats.uncertain == 1


def test_a_disk_that_is_not_there_is_an_error_before_anything_is_recorded(make_writes, client):
    writes = make_writes(fsync=True)
    with pytest.raises(cl.CachelabError, match=r"Redis 7\.2 .*appendonly.*Nothing was recorded"):
        writes.put("ada", "1")
    assert not client.keys("{writes}*")


def test_a_write_that_is_on_the_disk_outlives_its_server(db):
    with cl.Server(appendonly=True, appendfsync="always") as server:
        client = cl.connect(server.url, timeout=10)
        message = WriteBehind(client, fsync=True).put("ada", "1")
        server.kill()
        with pytest.raises(RedisUnavailable, match="may or may not have been recorded"):
            WriteBehind(cl.connect(server.url, check=False)).put("ada", "2")
        server.restart()
        writes = WriteBehind(client, load=db.get)
        assert writes.pending("ada") == message
        drained(Worker(client, db), writes)
    assert db.get("ada") == "1"


def test_without_redis_neither_a_put_nor_a_read_pretends(make_writes, db):
    with cl.Server() as server:
        writes = make_writes(server.url, timeout=0.2, load=db.get)
        writes.put("ada", "1")
        server.kill()
        with pytest.raises(RedisUnavailable, match="may or may not have been recorded"):
            writes.put("ada", "2")
        with pytest.raises(RedisUnavailable, match="cannot be told"):
            writes.get("ada")
        assert writes.stats.failed == 1


def test_a_server_that_is_full_or_holds_another_type_records_nothing(make_writes, client):
    writes = make_writes()
    client.set("{writes}:pending", "text")
    with pytest.raises(RedisUnavailable, match="WRONGTYPE.*Nothing was recorded"):
        writes.put("ada", "1")
    assert client.keys("{writes}*") == ["{writes}:pending"]


BAD = [
    ({"name": ""}, ValueError, "name"),
    ({"name": "a{b}c"}, ValueError, "braces"),
    ({"max_length": 0}, ValueError, "max_length"),
    ({"max_length": True}, TypeError, "max_length"),
    ({"max_wait": -1}, ValueError, "max_wait"),
    ({"replicas": 1.5}, TypeError, "replicas"),
    ({"fsync": "yes"}, ValueError, "fsync"),
    ({"wait_timeout": 0}, ValueError, "wait_timeout"),
    ({"wait_timeout": 5}, ValueError, r"connect\(timeout"),
    ({"cache": "cache"}, TypeError, "cache"),
    ({"load": 5}, TypeError, "load"),
]


@pytest.mark.parametrize(("options", "kind", "told"), BAD)
def test_bad_arguments_of_a_producer_are_refused(server, options, kind, told):
    for make, connect in ((WriteBehind, cl.connect), (AsyncWriteBehind, cl.connect_async)):
        with pytest.raises(kind, match=told):
            make(connect(server.url), **options)


def test_bad_writes_are_refused_before_anything_is_written(make_writes, client):
    writes = make_writes()
    for id, value, kind in [
        ("", 1, ValueError),
        (5, 1, TypeError),
        ("ada", {1, 2}, TypeError),
        ("ada", float("nan"), TypeError),
        ("ada", {1: 1, "1": 2}, ValueError),
        ("ada", "\ud800", ValueError),
    ]:
        with pytest.raises(kind, match=r"id|value|'ada'"):
            writes.put(id, value)
    with pytest.raises(ValueError, match="needs a cache or a load"):
        writes.get("ada")
    assert not client.keys("*")


@pytest.mark.parametrize("other", [redis.asyncio.Redis(), redis.Redis().pipeline(), None])
def test_what_is_no_client_is_refused(other, db):
    for make in (WriteBehind, partial(Worker, database=db)):
        with pytest.raises(TypeError, match="client must be"):
            make(other)


BAD_WORKERS = [
    ({"group": ""}, ValueError, "group"),
    ({"group": "a b"}, ValueError, "group"),
    ({"consumer": 5}, TypeError, "consumer"),
    ({"batch": 0}, ValueError, "batch"),
    ({"batch": 1001}, ValueError, "batch"),
    ({"claim_after": 0}, ValueError, "claim_after"),
    ({"tries": 0}, ValueError, "tries"),
    ({"keep": -1}, ValueError, "keep"),
    ({"cache": "cache"}, TypeError, "cache"),
    ({"store": 5}, TypeError, "store"),
    ({"database": 5}, TypeError, "database"),
    ({"database": "mysql://me:sesame@h/d"}, ValueError, "url must be"),
]


@pytest.mark.parametrize(("options", "kind", "told"), BAD_WORKERS)
def test_bad_arguments_of_a_worker_are_refused(make_worker, options, kind, told):
    with pytest.raises(kind, match=told) as caught:
        make_worker(**options)
    assert "sesame" not in str(caught.value)


# Workers that die. Each store leaves an effect, so that what is applied twice is seen.


class Trial:
    """Writes whose effects are counted, and workers in children that die at a point."""

    def __init__(self, server, path, database: str = ""):
        self.url = server.url
        self.path = path
        self.database = database or f"sqlite:///{path}"
        self.client = cl.connect(server.url, timeout=10)
        self.writes = WriteBehind(self.client, max_length=100_000)
        self.put_values: list[tuple[str, str]] = []
        number = "SERIAL" if database else "INTEGER"
        sql(
            self.database,
            f"CREATE TABLE effects (n {number} PRIMARY KEY, id TEXT, value TEXT)",
            "CREATE TABLE latest (stream TEXT PRIMARY KEY, message TEXT)",
        )

    def put(self, count: int, ids: int = 3) -> None:
        """Put values that are all different, by `WriteBehind`."""
        for n in range(len(self.put_values), len(self.put_values) + count):
            id, value = f"user-{n % ids}", str(n)
            self.writes.put(id, value)
            self.put_values.append((id, value))

    def dies(self, work, point: str) -> None:
        """Have a worker work in a child until it is killed at the point."""

        def child(say):
            def at(reached: str) -> None:
                if reached == point:
                    os.kill(os.getpid(), signal.SIGKILL)

            work(self, at)

        self.waited(Child(child), signal.SIGKILL)

    def waited(self, child: Child, number: int) -> None:
        with child:
            with pytest.raises(EOFError):
                child.hear(PATIENCE)
            assert child.kill() == -number

    def effects(self) -> list[tuple[str, str]]:
        return [
            tuple(row) for row in sql(self.database, "SELECT id, value FROM effects ORDER BY n")
        ]

    def lost_and_doubled(self) -> tuple[int, int]:
        """Return how many rows are not what was put last, and how many writes came twice."""
        effects = self.effects()
        rows, wanted = dict(effects), dict(self.put_values)
        doubled = sum(count > 1 for count in Counter(effects).values())
        return sum(rows.get(id) != value for id, value in wanted.items()), doubled


def effect(connection, id: str, value: str | None) -> None:
    connection.execute(
        text("INSERT INTO effects (id, value) VALUES (:id, :value)"), {"id": id, "value": value}
    )


def ours(trial: Trial, at, claim_after: float = 0.001, **options) -> Worker:
    """Make the worker of this package, with points at which it may die."""

    class Watched(Worker):
        def _bring(self, messages):
            at("read")
            super()._bring(messages)

        def _acknowledge(self, messages):
            at("before XACK")
            super()._acknowledge(messages)
            at("after XACK")

    class Watching(cl.UserDatabase):
        @contextmanager
        def transaction(self, patience=PATIENCE):
            with super().transaction(patience) as connection:
                yield connection
                at("before COMMIT")
            at("after COMMIT")

    database = cl.UserDatabase(trial.database, latency=0)
    client = cl.connect(trial.url, timeout=10)
    worker = Watched(client, database, claim_after=claim_after, store=effect, **options)
    worker._rows._prepare()
    worker._rows._database = Watching(database.url, latency=0)
    return worker


def work(trial: Trial, at, **options) -> None:
    worker = ours(trial, at, **options)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        worker.step(0.02)


@pytest.fixture
def trial(server, client, tmp_path):
    return Trial(server, tmp_path / "effects.db")


def nothing(point: str) -> None:
    pass


@pytest.mark.parametrize("claims", ["at once", "out of order"])
def test_workers_killed_ten_times_around_commit_and_acknowledgement_lose_and_double_nothing(
    trial, claims
):
    claim_after = 0.001 if claims == "at once" else 3600
    for n in range(10):
        trial.put(7)
        trial.dies(partial(work, claim_after=claim_after, batch=3), POINTS[n % 4])
    worker = ours(trial, nothing, batch=4, claim_after=3600)
    while worker.step().read:  # what nobody has had is applied before what the dead have left
        pass
    drained(ours(trial, nothing, batch=4), trial.writes)
    assert trial.lost_and_doubled() == (0, 0)
    for id in ("user-0", "user-1", "user-2"):
        mine = [int(value) for row, value in trial.effects() if row == id]
        assert mine == sorted(mine)
    found = sql(
        f"sqlite:///{trial.path}", "SELECT outcome, count(*) FROM cachelab_applied GROUP BY 1"
    )
    assert dict(found)["applied"] == len(trial.effects())
    assert sum(count for _, count in found) == 70
    assert [trial.client.hgetall(f"{{writes}}:{part}") for part in ("pending", "tries")] == [{}, {}]
    assert not trial.client.exists("{writes}:aside")


def popped(trial: Trial, at) -> None:
    """A list and LPOP: what a worker has popped is nowhere else."""
    while popped := trial.client.lpop("list", 3):
        written([json.loads(one) for one in popped], trial, at)


def written(rows, trial: Trial, at, latest: str = "") -> None:
    at("read")
    connection = sqlite3.connect(trial.path, isolation_level=None, timeout=PATIENCE)
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO effects (id, value) VALUES (?, ?)", rows)
    if latest:
        connection.execute("REPLACE INTO latest VALUES ('writes', ?)", (latest,))
    at("before COMMIT")
    connection.execute("COMMIT")
    at("after COMMIT")
    connection.close()


def grouped(trial: Trial, at, is_first=False, remembers_last=False, claims=True) -> None:
    """A group of the stream, as it is often read; is_first: acknowledged before the commit."""
    group = ("writes", f"worker-{os.getpid()}")
    with suppress(redis.ResponseError):
        trial.client.xgroup_create(STREAM, "writes", "0", mkstream=True)
    while True:
        found = trial.client.xreadgroup(*group, {STREAM: ">"}, count=3)
        messages = found[0][1] if found else []
        if not messages and claims:
            messages = trial.client.xautoclaim(STREAM, *group, 0, count=3)[1]
        if not messages:
            return
        ids = [message for message, _ in messages]
        new = messages
        if remembers_last:
            last = latest_of(trial)
            new = [one for one in messages if order_of(one[0]) > order_of(last)]
        rows = [(fields["id"], json.loads(fields["value"])) for _, fields in new]
        if is_first:
            trial.client.xack(STREAM, "writes", *ids)
        written(rows, trial, at, new[-1][0] if remembers_last and new else "")
        at("before XACK")
        if not is_first:
            trial.client.xack(STREAM, "writes", *ids)
        at("after XACK")


def order_of(message: str) -> tuple[int, ...]:
    return tuple(map(int, message.split("-")))


def latest_of(trial: Trial) -> str:
    connection = sqlite3.connect(trial.path)
    found = connection.execute("SELECT message FROM latest").fetchone()
    connection.close()
    return found[0] if found else "0-0"


def put_in_a_list(trial: Trial, count: int) -> None:
    for n in range(len(trial.put_values), len(trial.put_values) + count):
        trial.client.rpush("list", json.dumps([f"user-{n}", str(n)]))
        trial.put_values.append((f"user-{n}", str(n)))


def put_capped(trial: Trial, count: int) -> None:
    for n in range(len(trial.put_values), len(trial.put_values) + count):
        fields = {"id": f"user-{n}", "value": json.dumps(str(n))}
        trial.client.xadd(STREAM, fields, maxlen=5, approximate=False)
        trial.put_values.append((f"user-{n}", str(n)))


def put_apart(trial: Trial, count: int) -> None:
    trial.put(count, ids=10**6)


CONTROLS = {  # how it is put and worked off, and whether writes are lost, and doubled
    "list pop": (put_in_a_list, popped, (True, False)),
    "acknowledged first": (put_apart, partial(grouped, is_first=True), (True, False)),
    "not idempotent": (put_apart, grouped, (False, True)),
    "last id": (
        put_apart,
        partial(grouped, remembers_last=True, claims=False),
        (True, False),
    ),
    "MAXLEN": (put_capped, grouped, (True, False)),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_the_usual_forms_lose_or_double_where_they_are_killed_alike(trial, control):
    put, form, wanted = CONTROLS[control]
    for point in POINTS[:2] if form is popped else POINTS:
        put(trial, 7)
        trial.dies(form, point)
    if control == "last id":
        form(trial, nothing)  # what nobody has had comes before what the dead have left
        form = partial(grouped, remembers_last=True)
    form(trial, nothing)
    assert tuple(map(bool, trial.lost_and_doubled())) == wanted


def stopped(child: Child) -> None:
    """Wait until a child has stopped itself."""
    until = time.monotonic() + PATIENCE
    while not os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT):
        assert time.monotonic() < until
        time.sleep(0.005)


def helped_by(trial: Trial, form, helpers: int, done) -> None:
    """Have a worker stop between read and commit, others do its work, and go on then."""

    def first(say):
        stops = [signal.SIGSTOP]

        def at(point: str) -> None:
            if point == "read" and stops:
                os.kill(os.getpid(), stops.pop())
                say("goes on")
            if point == "after COMMIT" and not stops:
                say("committed")

        form(trial, at)

    with Child(first) as slow:
        stopped(slow)
        trial.put(60)
        others = [Child(lambda say: form(trial, nothing)) for _ in range(helpers)]
        try:
            done()
        finally:
            for other in others:
                other.kill()
        os.kill(slow.pid, signal.SIGCONT)
        assert slow.hear(PATIENCE) == "goes on" and slow.hear(PATIENCE) == "committed"


def test_of_four_workers_one_may_stop_between_its_read_and_its_commit(trial):
    trial.put(60)
    ours(trial, nothing)
    form = partial(work, batch=10, claim_after=0.05)
    helped_by(trial, form, 3, partial(emptied, trial.writes))
    assert trial.lost_and_doubled() == (0, 0)
    remembered = sql(
        trial.database,
        "SELECT count(*), count(DISTINCT message_id) FROM cachelab_applied "
        "WHERE outcome IN ('applied', 'superseded')",
    )
    assert remembered == [(120, 120)]


def test_without_versions_the_stopped_worker_would_bring_back_an_old_value(trial):
    trial.put(60)

    def done() -> None:
        until = time.monotonic() + PATIENCE
        while len(trial.effects()) < 120:
            assert time.monotonic() < until
            time.sleep(0.01)

    helped_by(trial, grouped, 1, done)
    lost, doubled = trial.lost_and_doubled()
    assert lost and doubled


# Failures of messages, of the database, of the server.


class Refuses:
    """A store that refuses one value as often as it is told to, by whatever it is told to do."""

    def __init__(self, value: str, refuse, times: int = 10**9):
        self.value, self.refuse, self.left = value, refuse, times
        self.stored: list[tuple[str, str | None]] = []

    def __call__(self, connection, id: str, value: str | None) -> None:
        if value == self.value and self.left:
            self.left -= 1
            self.refuse()
        self.stored.append((id, value))


def bad() -> None:
    raise ZeroDivisionError("this value is refused")


def test_a_message_that_fails_is_set_aside_after_five_tries_and_holds_up_nobody(
    writes, make_worker, client, caplog, monkeypatch
):
    monkeypatch.setattr("cachelab.writes.worker.RETRY", 0.001)
    for id, value in [("a", "1"), ("b", "bad"), ("c", "3"), ("d", "4")]:
        writes.put(id, value)
    store = Refuses("bad", bad)
    worker = make_worker(store=store)
    worker.step()
    assert set(store.stored) == {("a", "1"), ("c", "3"), ("d", "4")}
    drained(worker, writes)
    ((_, aside),) = client.xrange("{writes}:aside")
    assert aside["id"] == "b" and aside["value"] == '"bad"' and aside["stream"] == "writes"
    assert aside["error"] == "ZeroDivisionError: this value is refused" and aside["when"].isdigit()
    assert 10**9 - store.left == 6  # once with the others, five times alone
    assert (worker.stats.aside, worker.stats.failed, worker.stats.applied) == (1, 4, 3)
    told = [record.message for record in caplog.records if "set aside" in record.message]
    assert len(told) == 1 and "'b'" in told[0] and "ZeroDivisionError" in told[0]
    assert not client.exists("{writes}:tries") and writes.pending("b") is None


def test_a_message_that_fails_once_is_applied_and_one_that_a_newer_overtakes_superseded(
    writes, make_worker, db, monkeypatch
):
    monkeypatch.setattr("cachelab.writes.worker.RETRY", 0.001)
    first = writes.put("a", "bad")
    store = Refuses("bad", bad, times=2)
    worker = make_worker(store=store)
    drained(worker, writes)
    assert store.stored == [("a", "bad")]
    monkeypatch.setattr("cachelab.writes.worker.RETRY", 0.05)  # five tries take more than a second
    store.left = 10**9
    second = writes.put("a", "bad")
    worker.step()
    writes.put("a", "good")
    drained(worker, writes)
    assert store.stored[1:] == [("a", "good")]
    assert (records(db)[first], records(db)[second]) == ("applied", "superseded")


def test_a_text_that_somebody_else_wrote_into_the_stream_is_set_aside(
    writes, make_worker, client, monkeypatch
):
    monkeypatch.setattr("cachelab.writes.worker.RETRY", 0.001)
    for fields in ({"foo": "bar"}, {"id": "a", "value": "{"}, {"id": b"\xff", "value": "1"}):
        client.xadd(STREAM, fields)
    drained(make_worker(), writes)
    assert client.xlen("{writes}:aside") == 2  # an id is any text


def test_a_message_that_ends_its_worker_is_set_aside_and_the_others_are_applied(trial):
    trial.put(3)
    trial.writes.put("deadly", "deadly")

    def end() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def deadly(trial: Trial, at) -> None:
        worker = ours(trial, at)
        worker._rows._store = Refuses("deadly", end)
        until = time.monotonic() + PATIENCE
        while trial.writes.length() and time.monotonic() < until:
            worker.step(0.02)

    deaths = 0
    while trial.writes.length():
        with Child(lambda say: deadly(trial, nothing)) as child, pytest.raises(EOFError):
            child.hear(PATIENCE)
        deaths += child.kill() == -signal.SIGKILL
    assert deaths == 12  # twice with the others, ten times alone
    ((_, aside),) = trial.client.xrange("{writes}:aside")
    assert aside["id"] == "deadly" and "its worker ended" in aside["error"]
    found = sql(trial.database, "SELECT row_id FROM cachelab_applied ORDER BY 1")
    assert found == [("user-0",), ("user-1",), ("user-2",)]


@contextmanager
def locked(path):
    """Hold the lock of an SQLite file."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("COMMIT")
    other.close()


def test_while_the_database_is_locked_nothing_is_lost_counted_or_set_aside(
    writes, make_worker, db, client, tmp_path, monkeypatch
):
    wait = partial(cl.UserDatabase.transaction, patience=0.01)
    monkeypatch.setattr(cl.UserDatabase, "transaction", lambda self: wait(self))
    message = writes.put("ada", "1")
    worker = make_worker(tries=1, claim_after=0.001)
    worker.step()
    message = writes.put("ada", "2")
    with locked(tmp_path / "rows.db"):
        for _ in range(5):
            with pytest.raises(Exception, match="locked") as caught:
                worker.step()
            assert is_away(caught.value)
            worker._renew()
    pending = client.xpending_range(STREAM, "rows", "-", "+", 10)
    assert [(one["message_id"], one["times_delivered"]) for one in pending] == [(message, 1)]
    assert not client.exists("{writes}:tries") and not client.exists("{writes}:aside")
    drained(worker, writes)
    assert db.get("ada") == "2"


@pytest.mark.parametrize("looks", [True, False])
def test_workers_that_are_killed_while_they_wait_for_a_lock_are_no_fault_of_the_message(
    writes, make_worker, client, tmp_path, monkeypatch, looks
):
    wait = partial(cl.UserDatabase.transaction, patience=0.01)
    monkeypatch.setattr(cl.UserDatabase, "transaction", lambda self: wait(self))
    if not looks:  # the control
        monkeypatch.setattr("cachelab.writes.rows.Rows.knows", lambda self, one: False)
    make_worker().step()
    writes.put("ada", "1")
    ask = Worker._ask

    def killed(worker, command, *ignored):
        if command[1] == UNCOUNT:
            raise KeyboardInterrupt
        return ask(worker, command, *ignored)

    with monkeypatch.context() as dying, locked(tmp_path / "rows.db"):
        dying.setattr(Worker, "_ask", killed)
        for _ in range(14):
            with suppress(Exception, KeyboardInterrupt):
                make_worker(claim_after=0.001, tries=1).step()
            time.sleep(0.002)
    drained(make_worker(claim_after=0.001, tries=1), writes)
    assert client.xlen("{writes}:aside") == (not looks)


def test_a_table_that_is_missing_is_no_fault_of_the_messages(writes, make_worker, db, client):
    worker = make_worker(tries=1)
    for n, table in enumerate(("cachelab_applied", "cachelab_users")):
        writes.put("ada", str(n))
        worker.step()
        sql(db.url, f"DROP TABLE {table}")
        writes.put("ada", "new")
        with pytest.raises(Exception, match="no such table") as caught:
            worker.step()
        assert is_away(caught.value) and not client.exists("{writes}:tries")
        if table == "cachelab_users":
            sql(db.url, "CREATE TABLE cachelab_users (id TEXT PRIMARY KEY, value TEXT NOT NULL)")
        drained(worker, writes)
        assert db.get("ada") == "new"


def test_run_waits_for_its_database_says_so_once_and_ends_when_told(
    writes, make_worker, db, tmp_path, monkeypatch, caplog
):
    wait = partial(cl.UserDatabase.transaction, patience=0.01)
    monkeypatch.setattr(cl.UserDatabase, "transaction", lambda self: wait(self))
    worker, stop = make_worker(), threading.Event()
    running = threading.Thread(target=worker.run, args=(stop,))
    with locked(tmp_path / "rows.db"):
        writes.put("ada", "1")
        running.start()
        until = time.monotonic() + PATIENCE
        while not caplog.records and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)  # several tries, of which the log tells the first
    while writes.length() and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    running.join(PATIENCE)
    assert not running.is_alive() and db.get("ada") == "1"
    (told,) = caplog.records
    assert "waits" in told.message and "locked" in told.message


def test_an_error_that_says_nothing_ends_no_worker(writes, make_worker, caplog):
    def silent() -> None:
        raise TimeoutError

    store = Refuses("1", silent, times=1)
    worker, stop = make_worker(store=store), threading.Event()
    writes.put("ada", "1")
    running = threading.Thread(target=worker.run, args=(stop,))
    running.start()
    emptied(writes)
    stop.set()
    running.join(PATIENCE)
    assert (store.stored, worker.stats.aside) == ([("ada", "1")], 0)
    assert [one.message for one in caplog.records] == ["The worker of 'writes' waits: TimeoutError"]


class Late(Worker):
    """A worker to whom a reply of more than five messages comes too late."""

    def _ask(self, command, *ignored):
        reply = super()._ask(command, *ignored)
        asked = command[command.index("COUNT") + 1] if "COUNT" in command else command[-1]
        if command[0] == "XREADGROUP" or command[1] == CLAIM:
            found = entries(reply) if command[0] == "XREADGROUP" else reply and reply[1]
            if found and int(asked) > 5:
                raise RedisUnavailable("Timeout reading from socket")
        return reply


class Insists(Late):
    """One that asks for as many each time: the control."""

    _asked = property(lambda self: 40, lambda self, count: None)


@pytest.mark.parametrize("kind", [Late, Insists])
def test_a_batch_that_is_too_long_to_come_in_time_is_made_shorter(server, writes, db, kind):
    for n in range(40):
        writes.put(f"user-{n}", "1")
    worker = kind(cl.connect(server.url, timeout=10), db, claim_after=0.001, batch=40)
    steps = 0
    while writes.length() and steps < 30:
        steps += 1
        with suppress(RedisUnavailable):
            worker.step()
    assert writes.length() == (0 if kind is Late else 40)


def test_the_batch_that_was_begun_is_ended_and_no_other_begun(writes, make_worker, db):
    stop, stored = threading.Event(), []

    def store(connection, id, value):
        stored.append(id)
        stop.set()

    for n in range(6):
        writes.put(f"user-{n}", n)
    stats = make_worker(batch=3, store=store).run(stop)
    assert (len(stored), stats.applied, writes.length()) == (3, 3, 3)


def test_an_async_run_that_is_cancelled_ends_its_batch(writes, make_worker, db):
    before = {*threading.enumerate()}

    async def main() -> None:
        writes.put("ada", "1")
        running = asyncio.create_task(make_worker().run_async())
        await asyncio.to_thread(emptied, writes)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert db.get("ada") == "1" and {*threading.enumerate()} <= before


def test_the_stream_is_trimmed_below_what_every_group_has_applied(
    writes, make_worker, client, tmp_path
):
    with cl.UserDatabase(f"sqlite:///{tmp_path}/search.db", latency=0) as other:
        rows, search = make_worker(), make_worker(other, group="search", batch=2)
        client.xgroup_create(STREAM, "search", "0", mkstream=True)
        for n in range(5):
            writes.put(f"user-{n}", n)
        rows.step()
        assert (rows.stats.applied, writes.length()) == (5, 5) and writes.pending("user-0")
        left = []
        while search.step().applied:
            left.append(writes.length())
        assert left == [3, 1, 0]
        assert not client.exists("{writes}:pending")
        assert other.get("user-4") == "4"


def test_a_stream_that_a_group_held_up_is_trimmed_when_that_group_is_gone(make_worker, client):
    client.xgroup_create(STREAM, "left behind", "0", mkstream=True)
    writes = WriteBehind(client, max_length=2)
    worker = make_worker(claim_after=0.001)
    for value in ("1", "2"):
        writes.put("ada", value)
        worker.step()
    worker.step()
    with pytest.raises(WritesFull):  # the control: nothing comes, since nothing may go
        writes.put("ada", "3")
    client.xgroup_destroy(STREAM, "left behind")
    drained(worker, writes)
    assert writes.pending("ada") is None


def test_two_groups_on_one_database_both_get_every_message(writes, make_worker):
    stored = {"rows": [], "audit": []}
    for group in stored:
        make_worker(group=group)._make_group()
    for n in range(3):
        writes.put("ada", n)
        for group, seen in stored.items():
            store = partial(lambda seen, connection, id, value: seen.append(value), seen)
            make_worker(group=group, store=store).step()
    assert stored == {"rows": [0, 1, 2], "audit": [0, 1, 2]} and writes.length() == 0


def test_trimming_compares_ids_as_numbers(writes, make_worker, client):
    for sequence in (8, 9, 10, 11):
        client.xadd(STREAM, {"id": "ada", "value": "1"}, id=f"1700000000000-{sequence}")
    worker = make_worker(batch=1)
    left = []
    while worker.step().read:
        left.append(writes.length())
    assert left == [3, 2, 1, 0]


def test_ids_are_forgotten_when_the_stream_knows_them_no_more(writes, make_worker, db):
    writes.put("ada", "1")
    drained(make_worker(), writes)
    assert len(records(db)) == 1  # kept for an hour
    writes.put("ada", "2")
    time.sleep(1.1)  # the stream's clock, in whole seconds
    writes.put("bob", "3")
    drained(make_worker(keep=0, batch=2), writes)
    assert len(records(db)) <= 1
    assert (db.get("ada"), db.get("bob")) == ("2", "3")


def test_a_worker_goes_on_after_its_stream_was_lost(writes, make_worker, client, db):
    worker = make_worker(claim_after=0.001)
    writes.put("ada", "1")
    worker.step()
    client.flushall()
    writes.put("ada", "2")
    drained(worker, writes)
    assert db.get("ada") == "2"


def test_a_clock_that_is_behind_after_the_stream_was_lost_loses_no_write(
    writes, make_worker, client, db
):
    worker = make_worker()
    for id in ("ada", "bob"):
        writes.put(id, "of the future")
    drained(worker, writes)
    sql(db.url, "UPDATE cachelab_versions SET message_id = '9999999999999-0'")
    client.flushall()
    for value in ("1", "2", None, "3"):
        writes.put("ada", value)
    client.xadd(STREAM, {"id": "bob", "value": '"old"'})  # the control: not known to be the latest
    drained(worker, writes)
    writes.put("ada", "4")
    drained(worker, writes)
    assert (db.get("ada"), db.get("bob")) == ("4", "of the future")
    assert sorted(records(db).values()) == ["applied"] * 4 + ["superseded"] * 4


@pytest.mark.parametrize("told", [True, False])
def test_an_id_of_a_message_that_comes_again_with_another_write_is_another_message(
    writes, make_worker, client, db, monkeypatch, told
):
    if not told:  # the control: as if the id alone told what has been brought
        monkeypatch.setattr("cachelab.writes.rows._digest", lambda message: "")
    for value, ids in {"lost": "ab", "new": "bc"}.items():
        client.flushall()  # and the clock is behind: ids go on from the one that came last
        for n, id in enumerate(ids):
            message, as_json = f"9999999999999-{n + 1}", json.dumps(value)
            client.xadd(STREAM, {"id": id, "value": as_json}, id=message)
            client.hset("{writes}:pending", id, f"{message} {as_json}")
        drained(make_worker(), writes)
    assert [db.get(id) for id in "abc"] == ["lost", *(["new", "new"] if told else ["lost", None])]


def test_a_worker_that_ends_leaves_no_consumer_and_one_that_has_messages_does(
    writes, make_worker, client
):
    stop = threading.Event()
    stop.set()
    make_worker()._make_group()
    writes.put("ada", "1")
    holder = make_worker(consumer="holder", store=bad)
    with suppress(ZeroDivisionError):
        holder.step()
    holder.run(stop)
    other = make_worker(consumer="other")
    other.step()
    assert {one["name"] for one in client.xinfo_consumers(STREAM, "rows")} >= {"holder"}
    other.run(stop)
    names = {one["name"] for one in client.xinfo_consumers(STREAM, "rows")}
    assert "holder" in names and "other" not in names


def test_a_worker_of_which_the_cache_cannot_be_told_acknowledges_nothing(writes, make_worker, db):
    with cl.Server() as away:
        users = cl.CacheAside(cl.connect(away.url), load=db.get, ttl=60)
        assert users.get("ada") is None
        away.kill()
        worker = make_worker(cache=users)
        writes.put("ada", "1")
        with pytest.raises(RedisUnavailable, match="stay in the stream"):
            worker.step()
        assert writes.length() == 1 and db.get("ada") == "1"
        away.restart()
        drained(worker, writes)
        assert users.get("ada") == "1" and worker.stats.repeated == 1


# What CI installs, or what takes several servers.


@pytest.mark.further
def test_on_a_cluster_a_name_is_one_slot_and_all_is_as_on_one_server(db):
    with cl.Cluster() as cluster:
        client = cl.connect(cluster.url, timeout=10)
        awaited = Awaited(cluster.url, 10, AsyncWriteBehind)
        names = ["writes", "orders", "carts"]
        for name in names:
            writes = WriteBehind(client, name=name, load=db.get, replicas=1, wait_timeout=5)
            for n in range(20):
                writes.put(f"{name}-{n % 7}", str(n))
            assert writes.get(f"{name}-5") == "19" and writes.length() == 20
            drained(Worker(client, db, name=name, batch=6), writes)
            assert db.get(f"{name}-5") == "19" and writes.get(f"{name}-6") == "13"
        awaited.put("ada", 1)
        assert (awaited.get("ada"), awaited.length()) == (1, 1)
        awaited.close()


@pytest.mark.further
def test_behind_sentinel_no_write_that_a_replica_has_is_lost_by_a_fail_over(db):
    with cl.Sentinel() as ha:
        client = cl.connect(ha.url, timeout=2)
        writes = WriteBehind(client, load=db.get, replicas=1, wait_timeout=1)
        worker = Worker(client, db, batch=5)
        acknowledged: dict[str, str] = {}

        def put(n: int) -> None:
            with suppress(RedisUnavailable, WriteUncertain):
                writes.put(f"user-{n}", str(n))
                acknowledged[f"user-{n}"] = str(n)

        for n in range(20):
            put(n)
        worker.step()
        next(node for node in ha.nodes if node.role == "primary").kill()
        until, n = time.monotonic() + PATIENCE, 20
        while len(acknowledged) < 40 and time.monotonic() < until:
            put(n := n + 1)
        while time.monotonic() < until:
            with suppress(RedisUnavailable):
                drained(worker, writes)
                break
        assert len(acknowledged) == 40
        assert {id: db.get(id) for id in acknowledged} == acknowledged


@pytest.fixture
def postgres():
    tables = ("cachelab_users", "cachelab_applied", "cachelab_versions", "effects", "latest")
    drop = f"DROP TABLE IF EXISTS {', '.join(tables)}"
    sql(POSTGRES, drop)
    with cl.UserDatabase(POSTGRES, latency=0) as db:
        yield db
    sql(POSTGRES, drop)


@pytest.mark.further
@without_postgres
def test_on_postgresql_workers_killed_twenty_times_lose_and_double_nothing(
    server, client, tmp_path, postgres
):
    trial = Trial(server, tmp_path / "unused.db", postgres.url)
    for n in range(20):
        trial.put(7)
        claim_after = 0.001 if n % 3 else 3600
        trial.dies(partial(work, claim_after=claim_after, batch=3), POINTS[n % 4])
    drained(ours(trial, nothing, batch=4), trial.writes)
    assert trial.lost_and_doubled() == (0, 0)
    assert len(records(postgres)) == 140 and not client.exists("{writes}:aside")


@pytest.mark.further
@without_postgres
def test_on_postgresql_many_workers_neither_wait_in_a_circle_nor_bring_back_an_old_value(
    writes, server, client, postgres, together
):
    draw = random.Random(0)
    wanted = {}
    for n in range(600):
        id = f"user-{draw.randrange(40)}"
        wanted[id] = None if n % 10 == 0 else str(n)
        writes.put(id, wanted[id])

    def bring() -> None:
        drained(Worker(client, postgres, batch=25, claim_after=0.05), writes)

    assert together(4, bring) == [None] * 4
    assert {id: postgres.get(id) for id in wanted} == wanted and len(records(postgres)) == 600


@pytest.mark.further
@without_postgres
def test_a_postgresql_that_is_locked_or_ends_its_sessions_is_away_and_a_value_is_not(
    writes, server, client, postgres, monkeypatch
):
    wait = partial(cl.UserDatabase.transaction, patience=0.05)
    monkeypatch.setattr(cl.UserDatabase, "transaction", lambda self: wait(self))
    monkeypatch.setattr("cachelab.writes.worker.RETRY", 0.001)
    worker = Worker(client, postgres, tries=1)
    writes.put("ada", "1")
    worker.step()
    writes.put("ada", "2")
    with postgres.transaction() as other:
        other.execute(text("LOCK TABLE cachelab_versions"))
        with pytest.raises(Exception, match="lock timeout") as caught:
            worker.step()
        assert is_away(caught.value)
    sql(
        POSTGRES,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE usename = current_user AND pid <> pg_backend_pid()",
    )
    with pytest.raises(Exception, match="terminat|closed|lost") as caught:
        worker.step()
    assert is_away(caught.value)
    assert not client.exists("{writes}:tries")
    writes.put("nul", "\0")
    drained(worker, writes)
    assert postgres.get("ada") == "2" and client.xlen("{writes}:aside") == 1
