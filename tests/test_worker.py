"""python -m cachelab worker: as a terminal, a supervisor and other workers see it."""

import os
import re
import signal
import subprocess
import sys

import pytest
from test_main import PATIENCE, dead_url

import cachelab as cl
from cachelab.writes import WriteBehind

COMMAND = [sys.executable, "-m", "cachelab", "worker"]


@pytest.fixture
def env(server, client, tmp_path):
    others = ("REDIS_", "CACHELAB_")
    return {key: value for key, value in os.environ.items() if not key.startswith(others)} | {
        "REDIS_URL": server.url,
        "CACHELAB_DATABASE_URL": f"sqlite:///{tmp_path}/users.db",
    }


@pytest.fixture
def db(env):
    with cl.UserDatabase(env["CACHELAB_DATABASE_URL"], latency=0) as db:
        yield db


@pytest.fixture
def start(env):
    """A function that starts a worker and waits until it says that it works."""
    started = []

    def run(*args: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([*COMMAND, *args], env=env, **pipes))
        assert "brings the writes of" in started[-1].stdout.readline()
        return started[-1]

    yield run
    for worker in started:
        worker.kill()
        worker.communicate()


def applied(told: str) -> int:
    (count,) = re.findall(r"^Ended: ([\d,]+) applied", told, re.M)
    return int(count.replace(",", ""))


def test_several_workers_share_a_stream_and_end_cleanly_when_told(start, server, db):
    users = cl.CacheAside(cl.connect(server.url, timeout=10), load=db.get, ttl=60)
    assert users.get("user-1") is None
    writes = WriteBehind(cl.connect(server.url, timeout=10), max_wait=PATIENCE)
    workers = [start("--cache-prefix", "cache:", "--batch", "5") for _ in range(2)]
    for n in range(200):
        writes.put(f"user-{n}", f"value {n}")
    waits = WriteBehind(cl.connect(server.url, timeout=10), max_length=1, max_wait=PATIENCE)
    waits.put("last", "one")  # there is room when all the others have been applied
    for worker, number in zip(workers, (signal.SIGTERM, signal.SIGINT), strict=True):
        worker.send_signal(number)
    ends = [worker.communicate(timeout=PATIENCE) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert [error for _, error in ends] == ["", ""]
    assert sum(applied(told) for told, _ in ends) + writes.length() == 201
    assert users.get("user-1") == "value 1" and db.get("user-199") == "value 199"


def test_what_a_killed_worker_leaves_another_takes_over(start, server, client, db):
    writes = WriteBehind(cl.connect(server.url, timeout=10), max_wait=PATIENCE)
    client.xgroup_create("{orders}:stream", "rows", "0", mkstream=True)
    orders = WriteBehind(cl.connect(server.url, timeout=10), name="orders")
    orders.put("ada", "1")
    client.xreadgroup("rows", "dead", {"{orders}:stream": ">"})
    worker = start("--name", "orders", "--claim-after", "0.001")
    writes.put("bob", "of another stream")
    waits = WriteBehind(
        cl.connect(server.url, timeout=10), name="orders", max_length=1, max_wait=PATIENCE
    )
    waits.put("ada", "2")
    worker.send_signal(signal.SIGTERM)
    told, _ = worker.communicate(timeout=PATIENCE)
    assert "1 were taken over" in told and writes.length() == 1
    assert db.get("ada") in ("1", "2")


@pytest.mark.parametrize(
    ("without", "args", "told"),
    [
        ("REDIS_URL", [], "set REDIS_URL"),
        ("CACHELAB_DATABASE_URL", [], "--database URL or CACHELAB_DATABASE_URL"),
        ("", ["--batch", "0"], "batch must be at least 1"),
        ("", ["--database", "mysql://me:sesame@h/d"], "url must be"),
        ("", ["--database", "sqlite:////nowhere/users.db"], "cannot be opened"),
    ],
)
def test_what_a_worker_cannot_work_with_is_told_in_one_line(
    monkeypatch, env, capsys, without, args, told
):
    from cachelab.__main__ import main

    for name in [name for name in os.environ if name.startswith(("REDIS_", "CACHELAB_"))]:
        monkeypatch.delenv(name)
    for name in ("REDIS_URL", "CACHELAB_DATABASE_URL"):
        if name != without:
            monkeypatch.setenv(name, env[name])
    assert main(["worker", *args]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1 and "sesame" not in said


def test_a_server_that_does_not_answer_is_named_without_its_password(monkeypatch, env, capsys):
    from cachelab.__main__ import main

    monkeypatch.setenv("REDIS_URL", dead_url())
    monkeypatch.setenv("CACHELAB_DATABASE_URL", env["CACHELAB_DATABASE_URL"])
    assert main(["worker"]) == 2
    said = capsys.readouterr().err
    assert "refuses connections" in said and "sekret" not in said
