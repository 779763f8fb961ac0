"""What a cache must survive in use: races, dead, frozen and refusing servers, broken networks.

Each test has a naive control in the same run that visibly fails, or stands beside one that does.
"""

import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
import redis

import cachelab as cl
from cachelab.lab.measure.link import Link


class Table:
    """A database of one dict whose reads are sometimes slow between the look and the answer."""

    def __init__(self, rows: dict[str, str], slow: float = 0.0, seed: int = 0):
        self.rows, self.slow, self.draw, self.loads = rows, slow, random.Random(seed), 0

    def get(self, id):
        self.loads += 1
        value = self.rows.get(id)
        if self.draw.random() < self.slow:
            time.sleep(0.005)
        return value


class Naive:
    """The common recipe: update, then delete."""

    def __init__(self, client, load):
        self.client, self.load = client, load

    def get(self, id):
        if (value := self.client.get(id)) is not None:
            return json.loads(value)
        value = self.load(id)
        self.client.set(id, json.dumps(value), ex=60)
        return value

    def invalidate(self, id):
        self.client.delete(id)


def contend(cache, table: Table, writers: int, rounds: int) -> tuple[int, int]:
    """Read and write two keys from eight threads; return (stale at rest, reads too old)."""
    ids, finished, older = list(table.rows), dict.fromkeys(table.rows, 0), []
    locks, stop = {id: threading.Lock() for id in ids}, threading.Event()

    def read(number: int):
        draw = random.Random(number)
        while not stop.is_set():
            id = draw.choice(ids)
            least = finished[id]
            if int(cache.get(id)) < least:
                older.append(id)

    def write(number: int):
        draw = random.Random(number)
        for _ in range(rounds // writers):
            id = draw.choice(ids)
            with locks[id]:  # writers of one row follow one another, as in a database
                table.rows[id] = str(int(table.rows[id]) + 1)
                version = int(table.rows[id])
                cache.invalidate(id)
                finished[id] = version
            time.sleep(0.0005)

    readers = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    workers = [threading.Thread(target=write, args=(100 + n,)) for n in range(writers)]
    for thread in readers + workers:
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    return sum(cache.get(id) != table.rows[id] for id in ids), len(older)


@pytest.mark.parametrize("writers", [1, 2])
def test_no_order_of_updates_and_loads_leaves_or_gives_an_old_value(make_cache, writers):
    table = Table({"a": "0", "b": "0"}, slow=0.05)
    cache = make_cache(table.get)
    assert contend(cache, table, writers, rounds=2000) == (0, 0)
    assert cache.stats.refused > 0  # it did happen that a load was overtaken


def test_the_common_recipe_gives_old_values(client):
    table = Table({"a": "0", "b": "0"}, slow=0.05)
    stale, older = contend(Naive(client, table.get), table, 1, rounds=500)
    assert stale + older > 0


def work(cache, table: Table, during, workers: int = 20) -> tuple[int, int]:
    """Read from many threads while ``during`` runs; return (reads served, reads lost or wrong)."""
    stop, served, lost = threading.Event(), [], []

    def read(number: int):
        draw = random.Random(number)
        while not stop.is_set():
            id = draw.choice(list(table.rows))
            try:
                (served if cache.get(id) == table.rows[id] else lost).append(id)
            except redis.RedisError:
                lost.append(id)
            time.sleep(0.002)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    during()
    stop.set()
    for thread in threads:
        thread.join()
    return len(served), len(lost)


@pytest.mark.parametrize(("breaks", "mends"), [("kill", "restart"), ("freeze", "thaw")])
def test_a_server_that_dies_or_freezes_under_load_loses_nothing_and_is_used_again(
    make_cache, breaks, mends
):
    table = Table({f"u{n}": f"value {n}" for n in range(20)})
    with cl.Server() as server:
        cache = make_cache(table.get, url=server.url, patient=False)

        def during():
            time.sleep(0.3)
            getattr(server, breaks)()
            time.sleep(1.5)
            getattr(server, mends)()
            hits, until = cache.stats.hits, time.monotonic() + 20
            while cache.stats.hits < hits + 100 and time.monotonic() < until:
                time.sleep(0.01)

        before = cache.stats.hits
        served, lost = work(cache, table, during)
        assert (lost, cache.stats.breaker) == (0, "closed") and cache.stats.hits > before + 100
        assert served > 100

        patient = redis.Redis.from_url(
            server.url, decode_responses=True, socket_timeout=0.2, retry=None
        )
        served, lost = work(
            Naive(patient, table.get),
            table,
            lambda: (time.sleep(0.2), server.kill(), time.sleep(0.3)),
        )
        assert lost > 0
        patient.close()


def no_permission(client):
    client.acl_setuser(
        "reader",
        enabled=True,
        passwords=["+word"],
        keys=["*"],
        commands=["+get", "+hello", "+ping"],
    )


def read_only(client):
    client.replicaof("127.0.0.1", 1)


REFUSALS = {
    "read only": (read_only, lambda url: url),
    "no permission": (
        no_permission,
        lambda url: url.replace(url.split("@")[0], "redis://reader:word"),
    ),
    "no such database": (lambda client: None, lambda url: url.split("/0")[0].rstrip("/") + "/99"),
    "too few replicas": (
        lambda client: client.config_set("min-replicas-to-write", 1),
        lambda url: url,
    ),
    "too many clients": (lambda client: client.config_set("maxclients", 1), lambda url: url),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_that_refuses_leaves_the_database_s_value(make_cache, caplog, refusal):
    prepare, changed = REFUSALS[refusal]
    table = Table({"ada": "Ada"})
    with cl.Server() as server:
        client = redis.Redis.from_url(server.url)
        client.set("ada2", '"cached"')
        prepare(client)
        cache = make_cache(table.get, url=changed(server.url))
        assert [cache.get("ada"), cache.get("nobody"), cache.get("ada")] == ["Ada", None, "Ada"]
        assert cache.stats.errors >= 1 and len(caplog.records) <= 1
        client.close()


def test_a_server_that_cannot_save_refuses_writes_and_every_read_is_served(make_cache):
    with cl.Server(save="3600 1") as server:
        client = redis.Redis.from_url(server.url)
        client.set("cached", '"hit"')
        shutil.rmtree(client.config_get("dir")["dir"])
        client.bgsave()
        until = time.monotonic() + 20
        while (
            client.info("persistence")["rdb_last_bgsave_status"] == "ok"
            and time.monotonic() < until
        ):
            time.sleep(0.01)
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.set("naive", 1)
        cache = make_cache(Table({"ada": "Ada"}).get, url=server.url)
        assert [cache.get("ada"), cache.get("cached"), cache.get("nobody")] == ["Ada", "hit", None]
        assert cache.stats.hits == 1 and cache.stats.breaker == "closed"
        client.close()


def usual(took: list[float]) -> float:
    """The third slowest of some calls: where the machine stood still it was the fault of none."""
    return sorted(took)[-3]


def restart_slowly(server: cl.Server, client: redis.Redis) -> threading.Thread:
    """Restart a server on what it saved; return, while it loads, the thread that waits for it."""
    client.mset(
        {f"fill{n}": "x" * 1024 for n in range(3000)}
    )  # at 5 ms a key; it answers LOADING after each
    client.save()
    restart = threading.Thread(target=server.restart)
    restart.start()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if client.info("persistence")["loading"]:
                return restart
        except redis.ConnectionError:
            pass  # not up yet
        time.sleep(0.001)
    raise AssertionError("the server was not seen loading")


def test_a_server_that_is_loading_its_data_set_adds_half_a_second_at_most_and_is_used_again(
    make_cache,
):
    table = Table({"ada": "Ada", "bob": "new"})
    slowly = {
        "key_load_delay": 5000,
        "loading_process_events_interval_bytes": 1024,
        "rdbcompression": False,
    }
    with cl.Server(save="3600 1000000", **slowly) as server:
        client = redis.Redis.from_url(server.url, retry=None)
        client.mset({"ada": '"cached"', "bob": '"old"'})
        restart = restart_slowly(server, client)
        cache = make_cache(table.get, url=server.url, patient=False)
        with pytest.raises(cl.InvalidationPending):
            cache.invalidate("bob")
        took = []
        for id in ["ada", "bob", "nobody"] * 5:
            started = time.monotonic()
            assert cache.get(id) == table.rows.get(id)
            took.append(time.monotonic() - started)
        with pytest.raises(redis.exceptions.BusyLoadingError):
            Naive(client, table.get).get("ada")  # still loading
        assert usual(took) < 1.0 and cache.stats.hits == 0
        assert cache.stats.errors_by_kind["BusyLoadingError"] >= 1 and cache.stats.breaker == "open"

        client.config_set("key-load-delay", 0)
        restart.join()
        until = time.monotonic() + 20
        while cache.get("ada") != "cached" and time.monotonic() < until:
            time.sleep(0.01)
        assert [cache.get("ada"), cache.get("bob")] == ["cached", "new"]
        assert (client.get("bob"), cache.stats.breaker) == (b'"new"', "closed")
        client.close()


@pytest.mark.parametrize("port", ["silent", "black hole"])
def test_a_port_that_never_answers_adds_half_a_second_at_most_and_then_nothing(make_cache, port):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = []
        if port == "black hole":  # a full queue: further connections get no answer at all
            for _ in range(8):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listener.getsockname())
        cache = make_cache(
            Table({"ada": "Ada"}).get,
            url=f"redis://127.0.0.1:{listener.getsockname()[1]}",
            patient=False,
        )
        took = []
        for _ in range(10):
            started = time.monotonic()
            assert cache.get("ada") == "Ada"
            took.append(time.monotonic() - started)
        assert usual(took) < 1.0 and min(took) < 0.1 and cache.stats.breaker == "open"
        for sock in waiting:
            sock.close()


def test_replies_cut_after_any_number_of_bytes_give_the_right_value_now_and_next(
    make_cache, server, client
):
    table = Table({"ada": "Ada"})
    with Link(server.url) as link:
        cache = make_cache(table.get, url=link.url)
        for count in range(0, 12):
            client.flushall()
            cache.get("zero")
            link.cut_after(count)
            assert cache.get("ada") == "Ada"
            assert cache.get("ada") == "Ada"
        link.heal()
        until = time.monotonic() + 10
        loads = None
        while loads != table.loads and time.monotonic() < until:
            loads = table.loads
            assert cache.get("ada") == "Ada"
        assert loads == table.loads  # it hits again


PROCESS = """
import sys, threading, cachelab as cl
from cachelab.cache import gate
client = cl.connect(sys.argv[1], timeout=10)
gate.BUDGET = 20  # what a machine that stands still takes is not Redis's fault
loads, values = [], []
start = threading.Barrier(50)

def load(id):
    loads.append(id)
    threading.Event().wait(0.5)
    return "Ada"

cache = cl.CacheAside(client, load=load, ttl=60, prefix="")

def read():
    start.wait()
    values.append(cache.get("ada"))

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=read) for _ in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(loads), values == ["Ada"] * 50)
"""


def test_four_processes_of_fifty_readers_load_once(server, client):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, server.url], **pipes) for _ in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [right for _, right in outcomes] == ["True"] * 4
    assert sum(int(loads) for loads, _ in outcomes) == 1


def test_a_killed_holder_delays_the_others_by_its_lease_at_most(server, client):
    code = PROCESS.replace("wait(0.5)", "wait(60)").replace("ttl=60,", "ttl=60, lease=1.0,")
    holder = subprocess.Popen(
        [sys.executable, "-c", code, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        holder.stdout.readline()
        holder.stdin.write(b"go\n")
        holder.stdin.flush()
        until = time.monotonic() + 30
        while client.get("ada") is None and time.monotonic() < until:
            time.sleep(0.001)
        assert client.get("ada").startswith("lease:")
        holder.kill()
    cache = cl.CacheAside(client, load=lambda id: "mine", ttl=60, prefix="")
    assert cache.get("ada") == "mine"
    assert client.get("ada") == '"mine"'
