"""The bench of 09 and 09b: workers that die, writers that meet, servers that are killed."""

import itertools
import json
import math
import os
import runpy
import signal
from pathlib import Path

import pytest

import cachelab as cl
from cachelab.errors import CachelabError
from cachelab.lab import writing
from cachelab.writes import Worker, WriteBehind

STREAM, GROUP = "cachelab:09:stream", "rows"
COUNT = 10


@pytest.fixture(scope="module")
def own():
    with cl.Server() as server:
        yield server


@pytest.fixture
def client(own):
    client = cl.connect(own.url, timeout=5)
    client.flushall()
    client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    return client


def push(client, id, value):
    client.rpush("cachelab:09:list", json.dumps([id, value]))


def add(client, id, value):
    client.xadd(STREAM, {"id": id, "value": value})


def save(database, id, value):
    database.execute("REPLACE INTO cachelab_users VALUES (?, ?)", [id, value])


def take(client):
    new = client.xreadgroup(GROUP, "worker", {STREAM: ">"}, count=COUNT)
    if new:
        return new[0][1]
    return client.xautoclaim(STREAM, GROUP, "worker", min_idle_time=100, count=COUNT)[1]


def pop(client, database):
    item = client.lpop("cachelab:09:list")
    if item:
        save(database, *json.loads(item))
        database.commit()
    return item


def commit_first(client, database):
    messages = take(client)
    for message, write in messages:
        with database:
            save(database, **write)
        client.xack(STREAM, GROUP, message)
    return messages


def put_behind(client, id, value):
    WriteBehind(client).put(id, value)


def trial(own, put, work, **more):
    return writing.counts(writing.trial(own, put, work, **{"writes": 80, "deaths": 12} | more))


def test_a_list_loses_what_its_worker_had_popped_and_nothing_where_nobody_dies(own, client):
    assert trial(own, push, pop)["lost"] > 0
    seen = trial(own, push, pop, deaths=0)
    assert seen == {"acknowledged": 80, "applied": 80, "lost": 0, "doubled": 0, "late": 0}


def test_a_stream_acknowledged_last_doubles_and_sets_rows_back(own, client):
    seen = trial(own, add, commit_first, rows=5)
    assert seen["lost"] == 0 < min(seen["doubled"], seen["late"])


def test_the_packages_own_worker_neither_loses_nor_doubles_nor_sets_back(own, client):
    seen = trial(own, put_behind, Worker, rows=5)
    assert seen["lost"] == seen["doubled"] == seen["late"] == 0 < seen["applied"]


def raises(client, database):
    raise LookupError("no such table")


def test_a_worker_that_raises_is_told_of(own, client):
    with pytest.raises(CachelabError, match="The worker raised LookupError: no such table"):
        trial(own, add, raises, writes=1)


def test_a_trial_is_drawn_with_what_was_lost_in_its_title(own, client):
    run = writing.trial(own, push, pop, writes=20, deaths=3)
    lost = writing.counts(run)["lost"]
    assert writing.chart(run, "A list").get_title(loc="left").replace("\n", " ") == (
        f"A list: {lost} of 20 writes lost, 0 applied twice"
    )


def test_a_function_is_carried_over_with_all_that_it_uses(tmp_path):
    (tmp_path / "work.py").write_text(writing.source(commit_first))
    names = runpy.run_path(str(tmp_path / "work.py"))
    assert names["COUNT"] == 10 and callable(names["save"]) and "pop" not in names


SHARED = itertools.count()


def uses_a_client(client, database):
    return next(SHARED)


def test_what_cannot_be_carried_over_is_named():
    with pytest.raises(CachelabError, match="uses_a_client uses SHARED, a count, which cannot"):
        writing.source(uses_a_client)


def dies_after(path):
    Path(path).write_text("begun")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_call_in_a_process_of_its_own_may_be_killed(tmp_path):
    assert writing.in_a_process(dies_after, str(tmp_path / "seen")) == -signal.SIGKILL
    assert (tmp_path / "seen").read_text() == "begun"


@pytest.fixture
def database():
    with cl.UserDatabase(latency=0) as database:
        yield database


def test_writers_that_meet_are_counted_where_cache_and_database_differ(client, database):
    def first(id, value):
        client.set(id, "nobody's")
        database.put(id, value)

    def around(id, value):
        database.put(id, value)
        client.delete(id)

    assert writing.race(first, client.get, database.get, rounds=5) == 5
    assert writing.race(around, client.get, database.get, rounds=5) == 0


def held(trials) -> set[str]:
    """Return the sentences that hold."""
    seen = set()
    for sentence, call in trials.sentences().items():
        try:
            if call():
                seen.add(sentence)
        except AssertionError:
            pass
    return seen


def test_the_trials_of_a_put_tell_the_orders_apart(client, database):
    def around(id, value):
        database.put(id, value)
        client.delete(f"put:{id}")

    def delete_first(id, value):
        client.delete(f"put:{id}")
        database.put(id, value)

    def set_after(id, value):
        database.put(id, value)
        client.set(f"put:{id}", value)

    trials = [
        writing.PutTrials(client, "put:", put, database)
        for put in (around, delete_first, set_after)
    ]
    everything = set(trials[0].sentences())
    assert held(trials[0]) == everything
    assert everything - held(trials[1]) == {
        "a reader who comes before the commit leaves nothing old"
    }
    assert everything - held(trials[2]) == {"nor does one who comes right after it"}


def test_the_trials_of_a_put_let_a_writer_wait_and_miss_one_who_goes_away(
    client, database, monkeypatch
):
    def wait(id, value):
        with client.lock(f"{id}:lock", timeout=5):
            database.put(id, value)
            client.set(f"put:{id}", value)

    def go_away(id, value):
        if client.set(f"{id}:lock", "1", nx=True):
            database.put(id, value)
            client.delete(f"put:{id}", f"{id}:lock")

    monkeypatch.setattr(writing, "TURN", 0.1)
    waits, goes = (writing.PutTrials(client, "put:", put, database) for put in (wait, go_away))
    assert held(waits) == set(waits.sentences())
    assert set(goes.sentences()) - held(goes) == {
        "a writer who comes before the commit leaves nothing else",
        "nor does one who comes right after it",
    }


def test_the_trials_of_a_replace_accept_a_script_and_no_look_beforehand(client):
    script = """if (redis.call('GET', KEYS[1]) or ''):match('^[^|]*') ~= ARGV[1] then return end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])"""
    numbers = itertools.count()

    def replace(client, key, seen, value, px):
        client.eval(script, 1, key, seen, f"{next(numbers)}|{value}", px)

    def look_first(client, key, seen, value, px):
        if (client.get(key) or "").partition("|")[0] == seen:
            client.set(key, f"{next(numbers)}|{value}", px=px)

    good, bad = (writing.ReplaceTrials(client, "key", one) for one in (replace, look_first))
    assert held(good) == set(good.sentences())
    assert set(good.sentences()) - held(bad) == {"so it is when that happens between your commands"}


@pytest.mark.parametrize(
    ("ends", "oldest", "dead"),
    [((54, 846), 60, 900), ((60, 840), 66, 900), ((54, 900), 60, 954)],
    ids=["right", "no time to load", "grace from the start"],
)
def test_a_simulated_page_is_as_old_as_its_ends_let_it_become(ends, oldest, dead):
    assert math.ceil(max(writing.ages(*ends, load=5, gap=1))) == oldest
    assert math.ceil(max(writing.ages(*ends, load=5, gap=1, dies=0))) == dead


def count_up(client):
    client.incr("cachelab:09:count")


@pytest.mark.parametrize("fsync", [None, "everysec", "always"])
def test_a_flood_is_recovered_from_a_log_and_else_is_not(fsync):
    config = {"appendonly": True, "appendfsync": fsync} if fsync else {}
    with cl.Server(**config) as server:
        told, log = writing.flood(server, count_up, 1.3 if fsync else 0.2)
        kept = int(cl.connect(server.url, timeout=5).get("cachelab:09:count") or 0)
    if not fsync:
        assert told > 0 == kept and log.empty
    else:
        assert kept >= told > 0 and len(log) > 1
        assert fsync == "always" or log["bytes"].max() > 0
