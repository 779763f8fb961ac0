"""What Prometheus sees of caches, writes and servers: at scrape time, in bounded time, by name."""

import asyncio
import gc
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

import pytest
import redis
from conftest import PATIENT, at_best
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

import cachelab as cl
from cachelab import metrics
from cachelab.cli.commands import main
from cachelab.lab import timing
from cachelab.writes import (
    AsyncRefreshAhead,
    AsyncWriteBehind,
    RefreshAhead,
    Worker,
    WriteBehind,
)
from cachelab.writes.stream import Stream

COMMAND = [sys.executable, "-m", "cachelab"]
Series = dict[tuple[str, ...], float]
OURS = "cachelab_server_"
MOVING = {  # which the two ask for one after the other
    f"{OURS}{name}"
    for name in (
        *("commands_processed_total", "connected_clients", "memory_used_bytes"),
        *("uptime_in_seconds", "rdb_last_save_timestamp_seconds"),
    )
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def series(text: str) -> Series:
    """Return the value of each series, by its name and what its labels say, in their order."""
    return {
        (one.name, *one.labels.values()): one.value
        for family in read_text(text)
        for one in family.samples
    }


def scraped(registry: CollectorRegistry) -> Series:
    return series(generate_latest(registry).decode())


def http(url: str) -> Series:
    return series(urllib.request.urlopen(url, timeout=60).read().decode())


def at_last(call: Callable[[], Series]) -> Series:
    """Return what a call does when what it asks has come up."""
    until = time.monotonic() + 60
    while True:
        try:
            return call()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.fixture
def database() -> Iterator["cl.UserDatabase"]:
    with cl.UserDatabase(latency=0, connections=1) as database:
        yield database


def test_reads_and_loads_are_shown_by_outcome(client, registry):
    users = metrics.register(cl.CacheAside(client, load=str.upper, ttl=60), "users", registry)
    for id in ("ada", "ada", "bob"):
        users.get(id)
    seen = scraped(registry)
    assert [seen["cachelab_reads_total", "users", told] for told in ("hit", "miss")] == [1, 2]
    assert seen["cachelab_loads_total", "users", "stored"] == 2
    assert seen["cachelab_load_seconds_count", "users"] == 2
    assert seen["cachelab_loads_running", "users"] == seen["cachelab_waits_total", "users"] == 0


@contextmanager
def traced() -> Iterator[list[tuple[str, int]]]:
    """Yield a list of each line of Python that is executed inside, but for the collector's."""
    lines: list[tuple[str, int]] = []

    def trace(frame, event, _):
        if event == "line":
            lines.append((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    with timing.collector_off():
        sys.settrace(trace)
        try:
            yield lines
        finally:
            sys.settrace(before)


def lines_of(call: Callable[[], object]) -> list[tuple[str, int]]:
    """Return each line of Python that a call executes."""
    with traced() as lines:
        call()
    return lines


@pytest.mark.parametrize("kind", [cl.CacheAside, RefreshAhead], ids=lambda kind: kind.__name__)
def test_a_hit_executes_the_same_code_with_and_without_register(client, registry, kind):
    more = {"grace": 60} if kind is RefreshAhead else {}
    users = kind(client, load=str.upper, ttl=60, **more)
    users.get("ada")
    users.get("ada")
    bare = lines_of(partial(users.get, "ada"))
    metrics.register(users, "users", registry)
    assert lines_of(partial(users.get, "ada")) == bare
    missed = len(lines_of(partial(users.get, "bob")))
    metrics.unregister(users, registry)
    assert len(lines_of(partial(users.get, "eve"))) < missed  # the control: a load tells more


def test_an_awaited_hit_executes_the_same_code_too(aclient, registry, run_async):
    async def load(id):
        return id

    async def lines_of_get(users) -> list[tuple[str, int]]:
        with traced() as lines:
            await users.get("ada")
        return [one for one in lines if "cachelab/cache/" in one[0]]

    async def use():
        users = cl.AsyncCacheAside(aclient, load, ttl=60)
        await users.get("ada")
        bare = await lines_of_get(users)
        metrics.register(users, "users", registry)
        return bare, await lines_of_get(users)

    bare, shown = run_async(use())
    assert bare == shown != []


def test_a_load_is_measured_where_it_happens(client, registry):
    def load(id):
        time.sleep(0.06)
        return id

    users = metrics.register(cl.CacheAside(client, load=load, ttl=60), "users", registry)
    users.get("ada")
    users.get("ada")  # a hit is no load
    seen = scraped(registry)
    until = [seen["cachelab_load_seconds_bucket", "users", at] for at in ("0.05", "+Inf")]
    assert until == [0, 1] and seen["cachelab_load_seconds_sum", "users"] >= 0.06


def ends_of(registry: CollectorRegistry) -> dict[str, float]:
    """Return how loads have ended."""
    return {key[-1]: n for key, n in scraped(registry).items() if "loads_total" in key[0] and n}


@pytest.mark.parametrize(
    ("end", "load", "options"),
    [
        ("stored", lambda cache, id: "Ada", {}),
        ("stored", lambda cache, id: None, {}),
        ("absent", lambda cache, id: None, {"missing_ttl": None}),
        ("refused", lambda cache, id: cache.invalidate(id), {}),
        ("too_large", lambda cache, id: "Ada" * 9, {"max_value_bytes": 9}),
        ("failed", lambda cache, id: 1 / 0, {}),
    ],
)
def test_each_way_in_which_a_load_ends_is_told(client, registry, end, load, options):
    cache = cl.CacheAside(client, load=lambda id: load(cache, id), ttl=60, **options)
    metrics.register(cache, "users", registry)
    with suppress(ZeroDivisionError):
        cache.get("ada")
    assert ends_of(registry) == {end: 1}
    refused = scraped(registry)["cachelab_stale_sets_refused_total", "users"]
    assert refused == (end == "refused")


def test_many_ids_that_load_in_one_call_are_one_call_and_many_loads(client, registry):
    cache = cl.CacheAside(client, load=str, ttl=60, load_many=lambda ids: dict.fromkeys(ids, "Ada"))
    metrics.register(cache, "users", registry)
    cache.get_many(["ada", "bob", "eve"])
    assert ends_of(registry) == {"stored": 3}
    assert scraped(registry)["cachelab_load_seconds_count", "users"] == 1


def test_loads_of_many_threads_are_all_counted(client, registry, together):
    cache = metrics.register(cl.CacheAside(client, load=str, ttl=60), "users", registry)
    together(8, lambda: cache.get_many(f"{threading.get_ident()}-{n}" for n in range(50)))
    assert scraped(registry)["cachelab_load_seconds_count", "users"] == 400


def test_loads_that_run_and_reads_that_wait_are_shown_meanwhile(client, registry, together):
    seen = []

    def load(id):
        while cache.stats.waits < 4:
            time.sleep(0.001)
        seen.append(scraped(registry))
        return id

    cache = cl.CacheAside(client, load=load, ttl=60)
    metrics.register(cache, "users", registry)
    together(5, cache.get, "ada")
    assert seen[0]["cachelab_loads_running", "users"] == 1
    assert seen[0]["cachelab_waits_total", "users"] == 4


def test_a_server_that_is_gone_shows_in_errors_breaker_and_pending_deletes(registry):
    with cl.Server() as server:
        cache = cl.CacheAside(cl.connect(server.url), load=str.upper, ttl=60)
        metrics.register(cache, "users", registry)
        cache.get("ada")
        place = f"127.0.0.1:{server.port}"
        before = scraped(registry)
        server.kill()
        for _ in range(6):
            assert cache.get("ada") == "ADA"
        with suppress(cl.InvalidationPending):
            cache.invalidate("ada")
        seen = scraped(registry)
    shown = ("cachelab_breaker_open", "users", place), ("cachelab_pending_deletes", "users")
    assert [before[one] for one in shown] == [0, 0] and [seen[one] for one in shown] == [1, 1]
    known = [key for key in seen if key[0] == "cachelab_errors_total"]
    assert sum(before[key] for key in known if key in before) == 0 < sum(seen[k] for k in known)
    assert ("cachelab_errors_total", "users", "ConnectionError") in before  # so that it increases
    assert seen["cachelab_loads_total", "users", "unstored"] >= 6


def test_a_frozen_server_delays_a_scrape_by_a_bound_and_hides_no_count_of_the_process(registry):
    with cl.Server() as server:
        client = redis.Redis.from_url(server.url)  # without a timeout: its own calls never end
        users = metrics.register(cl.CacheAside(client, load=str, ttl=60), "users", registry)
        orders = metrics.register(WriteBehind(client, "orders"), "orders", registry)
        metrics.register(client, "redis", registry)
        users.get("ada"), orders.put("ada", "Ada")
        server.freeze()
        naive = threading.Thread(target=client.info, daemon=True)
        naive.start()
        began = time.monotonic()
        seen = [scraped(registry) for _ in range(2)][1]
        assert time.monotonic() - began < 10 * metrics.WAIT and naive.is_alive()
        server.thaw()
        naive.join(PATIENT)
        back = at_best(lambda: scraped(registry)["cachelab_server_up", "redis"] == 1)
    assert seen["cachelab_server_up", "redis"] == 0 and back
    assert seen["cachelab_reads_total", "users", "miss"] == 1
    assert seen["cachelab_writes_put_total", "acknowledged", "orders"] == 1
    assert ("cachelab_writes_waiting", "orders") not in seen


def is_late(seen: Series) -> list[float]:
    return [seen[f"cachelab_server_{one}", "redis"] for one in ("up", "timed_out")]


def test_a_server_that_refuses_is_told_from_one_that_says_nothing(registry):
    with cl.Server() as server:
        client = metrics.register(cl.connect(server.url), "redis", registry)
        assert at_best(lambda: is_late(scraped(registry)) == [1, 0]) and client
        server.freeze()
        assert is_late(scraped(registry)) == [0, 1]
        server.thaw()
        server.kill()
        assert at_best(lambda: is_late(scraped(registry)) == [0, 0])


def test_what_keeps_a_server_from_telling_is_said_once(server, registry, caplog):
    wrong = f"redis://:wrong@127.0.0.1:{server.port}"
    client = metrics.register(cl.connect(wrong, check=False), "redis", registry)
    for _ in range(3):
        scraped(registry)
    (said,) = caplog.messages
    assert said.startswith("'redis' tells nothing to a scrape: ") and "password" in said
    assert client and not is_late(scraped(registry))[0]


class _Nonsense(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(65536):
            self.request.sendall(b"+OK\r\n")


def test_a_port_that_talks_nonsense_hides_no_count_of_the_process(registry):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Nonsense) as port:
        threading.Thread(target=port.serve_forever, daemon=True).start()
        client = redis.Redis(port=port.server_address[1], protocol=2)
        users = metrics.register(cl.CacheAside(client, load=str, ttl=60), "users", registry)
        orders = metrics.register(Stream(client, "orders"), "orders", registry)
        metrics.register(client, "redis", registry)
        users.get("ada")
        seen = scraped(registry)
        client.close()
        port.shutdown()
    assert seen["cachelab_reads_total", "users", "miss"] == 1 and orders
    assert not [key for key in seen if key[0].startswith("cachelab_writes")]


def test_two_scrapes_at_once_see_the_same_server(registry, together):
    def holds() -> bool:
        server.freeze()
        threading.Timer(metrics.WAIT / 5, server.thaw).start()
        return [one["cachelab_server_up", "redis"] for one in together(2, scraped, registry)] == [
            1,
            1,
        ]

    with cl.Server() as server:
        client = metrics.register(cl.connect(server.url, timeout=PATIENT), "redis", registry)
        assert at_best(holds) and client


def test_writes_wait_in_the_stream_until_a_worker_has_applied_them(client, registry, database):
    orders = metrics.register(WriteBehind(client, "orders"), "orders", registry)
    worker = metrics.register(Worker(client, database, "orders"), "orders", registry)
    orders.put("ada", "1"), orders.put("ada", "2"), orders.put("bob", "1")
    time.sleep(0.01)
    before = scraped(registry)
    worker.step()
    orders.put("eve", "1")
    after = scraped(registry)
    waiting = "cachelab_writes_waiting", "orders"
    lag = "cachelab_writes_lag_seconds", "orders"
    assert (before[waiting], after[waiting]) == (3, 1) and before[lag] >= 0.01
    assert after["cachelab_writes_applied_total", "orders"] == 2
    assert after["cachelab_writes_superseded_total", "orders"] == 1
    worker.step()
    assert (scraped(registry)[waiting], scraped(registry)[lag]) == (0, 0)


def test_what_one_of_two_groups_has_not_applied_waits(client, registry, database):
    orders = WriteBehind(client, "orders")
    metrics.register(orders.stream, "orders", registry)
    mine, other = (Worker(client, database, "orders", group=one) for one in ("mine", "other"))
    mine.step(), other.step()
    orders.put("ada", "1"), orders.put("bob", "1")
    mine.step()
    assert scraped(registry)["cachelab_writes_waiting", "orders"] == 2
    other.step()
    assert scraped(registry)["cachelab_writes_waiting", "orders"] == 0


def test_what_a_worker_has_read_and_not_applied_waits_with_its_age(client, registry, database):
    orders = WriteBehind(client, "orders")
    metrics.register(orders.stream, "orders", registry)
    Worker(client, database, "orders").step()
    orders.put("ada", "1")
    client.xreadgroup("rows", "stuck", {"{orders}:stream": ">"})  # and dies
    orders.put("bob", "1")
    time.sleep(0.01)
    seen = scraped(registry)
    assert seen["cachelab_writes_waiting", "orders"] == 2
    assert seen["cachelab_writes_lag_seconds", "orders"] >= 0.01


def test_writes_that_are_set_aside_are_shown(client, registry, database):
    orders = WriteBehind(client, "orders")
    worker = Worker(client, database, "orders", tries=1, store=lambda *_: 1 / 0)
    metrics.register(worker, "orders", registry)
    orders.put("ada", "1")
    while worker.step().aside == 0:
        pass
    seen = scraped(registry)
    assert seen["cachelab_writes_set_aside", "orders"] == 1 == worker.stats.aside
    assert seen["cachelab_writes_waiting", "orders"] == 0


def test_the_asyncio_twins_are_shown_too(aclient, registry, run_async):
    async def load(id):
        return id.upper()

    async def use():
        users = metrics.register(cl.AsyncCacheAside(aclient, load, ttl=60), "users", registry)
        pages = AsyncRefreshAhead(aclient, load, ttl=60, grace=60)
        metrics.register(pages, "pages", registry)
        orders = metrics.register(AsyncWriteBehind(aclient, "orders"), "orders", registry)
        await asyncio.gather(users.get("ada"), users.get("ada"), pages.get("ada"))
        await orders.put("ada", "1")
        return await asyncio.to_thread(scraped, registry), await users.get("ada"), pages

    seen, _, _ = run_async(use())
    assert seen["cachelab_loads_total", "users", "stored"] == 1
    assert seen["cachelab_waits_total", "users"] == 1
    assert seen["cachelab_loads_total", "pages", "stored"] == 1
    assert seen["cachelab_writes_waiting", "orders"] == 1


def test_a_refresh_ahead_tells_its_refreshes_and_what_was_stale(client, registry):
    refreshed = threading.Event()

    def load(id):
        if seen:
            refreshed.set()
        return id

    seen: list[str] = []
    pages = RefreshAhead(client, load=load, ttl=0.05, jitter=0, grace=60)
    metrics.register(pages, "pages", registry)
    seen.append(pages.get("ada"))
    time.sleep(0.06)
    pages.get("ada")
    assert refreshed.wait(PATIENT)
    told = scraped(registry)
    assert told["cachelab_refreshes_total", "pages"] == 1
    assert told["cachelab_stale_reads_total", "pages"] == 1
    assert told["cachelab_refreshes_failed_total", "pages"] == 0


def test_a_name_is_given_once_and_is_free_again_when_it_was_unregistered(client, registry):
    users, others = (cl.CacheAside(client, str, ttl=60, prefix=one) for one in ("a:", "b:"))
    metrics.register(users, "users", registry)
    with pytest.raises(ValueError, match="'users' is taken by another CacheAside: choose"):
        metrics.register(others, "users", registry)
    with pytest.raises(ValueError, match="this CacheAside is registered as 'users'"):
        metrics.register(users, "again", registry)
    metrics.unregister(users, registry)
    metrics.register(others, "users", registry)
    users.get("ada")
    assert scraped(registry)["cachelab_load_seconds_count", "users"] == 0
    assert users.core.observers == ()
    with pytest.raises(ValueError, match="this CacheAside is not registered"):
        metrics.unregister(users, registry)


def test_a_cache_that_nobody_holds_leaves_and_its_name_is_free(client, registry):
    users = metrics.register(cl.CacheAside(client, str, ttl=60), "users", registry)
    assert scraped(registry)
    del users
    gc.collect()
    assert scraped(registry) == {}
    kept = metrics.register(cl.CacheAside(client, str, ttl=60), "users", registry)
    assert scraped(registry)["cachelab_reads_total", "users", "hit"] == 0 and kept


@pytest.mark.parametrize(
    ("what", "name", "error"),
    [
        (lambda client: "users", "users", "must be a cache, writes, a worker or a client, not a"),
        (lambda client: cl.CacheAside(client, str, 60), "", "name must be 1 to 512 bytes"),
        (lambda client: cl.CacheAside(client, str, 60), 5, "name must be a str"),
        (lambda client: client.pipeline(), "redis", "not a pipeline"),
    ],
)
def test_what_cannot_be_shown_is_refused(client, registry, what, name, error):
    with pytest.raises((TypeError, ValueError), match=error):
        metrics.register(what(client), name, registry)
    assert scraped(registry) == {}


def test_a_scrape_of_many_caches_sends_nothing_to_redis(client, registry):
    caches = [cl.CacheAside(client, str, ttl=60, prefix=f"{n}:") for n in range(100)]
    for n, cache in enumerate(caches):
        metrics.register(cache, f"cache-{n}", registry)

    def sent() -> int:
        return client.info("stats")["total_commands_processed"]

    before = sent()
    assert len(scraped(registry)) > 3000
    assert sent() - before == 1  # the question itself


def test_no_label_grows_with_ids(client, registry):
    users = metrics.register(cl.CacheAside(client, str, ttl=60), "users", registry)
    orders = metrics.register(WriteBehind(client, "orders"), "orders", registry)
    few = scraped(registry).keys()
    for n in range(100):
        users.get(f"user-{n}"), orders.put(f"user-{n}", "Ada")
    assert scraped(registry).keys() == few


@pytest.fixture
def whole(client, registry, database) -> Iterator[CollectorRegistry]:
    """A registry with something of each kind, all in use."""
    users = metrics.register(cl.CacheAside(client, str, ttl=60), "users", registry)
    pages = RefreshAhead(client, str, ttl=60, grace=60)
    metrics.register(pages, 'pages "of" a \\ shop\n', registry)
    orders = metrics.register(WriteBehind(client, "orders"), "orders", registry)
    worker = metrics.register(Worker(client, database, "orders"), "orders", registry)
    metrics.register(client, "redis", registry)
    users.get("ada"), pages.get("ada"), orders.put("ada", "1"), worker.step()
    with suppress(redis.ResponseError):
        client.incr("cache:ada")
    yield registry


def test_every_family_is_shown_in_both_formats_alike(whole):
    text = read_text(generate_latest(whole).decode())
    families = {one.name for one in text}
    newer = {one.name for one in read_openmetrics(openmetrics.generate_latest(whole).decode())}
    of_replicas = "cachelab_server_master_link_up"
    assert families == newer == metrics.FAMILIES.keys() - {of_replicas}
    assert scraped(whole)["cachelab_server_errors_total", "ERR", "redis"] == 1


@pytest.mark.further
@pytest.mark.skipif(not shutil.which("promtool"), reason="needs Debian's package prometheus")
def test_promtool_finds_nothing_to_say_of_the_text(whole):
    def lint(text: bytes) -> str:
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=PATIENT * 6
        )
        return done.stderr.decode() + done.stdout.decode()

    text = generate_latest(whole)
    assert lint(text) == ""
    assert "_total" in lint(text.replace(b"cachelab_waits_total", b"cachelab_waits"))  # control


@pytest.mark.further
@pytest.mark.skipif(
    not shutil.which("prometheus-redis-exporter"), reason="needs prometheus-redis-exporter"
)
def test_a_server_s_numbers_have_the_names_and_the_meanings_of_redis_exporter(
    client, registry, server
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
    command = ["prometheus-redis-exporter", f"-web.listen-address={place}"]
    account = {"REDIS_ADDR": f"redis://127.0.0.1:{server.port}", "REDIS_USER": "default"}
    account["REDIS_PASSWORD"] = urlsplit(server.url).password
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    metrics.register(client, "redis", registry)
    client.get("ada")
    with suppress(redis.ResponseError):
        client.incr(client.set("ada", "") and "ada")
    with subprocess.Popen(command, env=os.environ | account, **quiet) as process:
        try:
            theirs = at_last(lambda: http(f"http://{place}/metrics"))
        finally:
            process.terminate()
    ours = {key[0]: value for key, value in scraped(registry).items()}
    named = {key[0]: value for key, value in theirs.items()}
    apart = {name for name in ours if name.replace(OURS, "redis_") not in named}
    own = {f"{OURS}timed_out", f"{OURS}errors_total"}  # older ones do not show errors
    assert apart <= own
    ours = {name: value for name, value in ours.items() if name not in MOVING | apart}
    assert ours == {name: named[name.replace(OURS, "redis_")] for name in ours}


PROCESS = """
import sys
import cachelab as cl
from cachelab import metrics
from prometheus_client import start_http_server
users = metrics.register(cl.CacheAside(cl.connect(timeout=10), load=str.upper, ttl=60), "users")
for id in sys.argv[1:]:
    users.get(id)
print(start_http_server(0, addr="127.0.0.1")[0].server_port, flush=True)
sys.stdin.read()
"""


def test_each_process_is_a_target_of_its_own_and_their_sum_is_the_whole(server, client):
    env = os.environ | {"REDIS_URL": server.url}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    seen = []
    for ids in (["ada", "bob"], ["ada", "bob", "eve"]):
        with subprocess.Popen([sys.executable, "-c", PROCESS, *ids], env=env, **pipes) as process:
            port = process.stdout.readline().strip()
            seen.append(http(f"http://127.0.0.1:{port}/metrics"))
            process.stdin.close()
    told = [[one["cachelab_reads_total", "users", how] for one in seen] for how in ("hit", "miss")]
    assert told == [[0, 2], [2, 1]]


def test_a_forked_child_answers_for_itself(client, registry):
    users = metrics.register(cl.CacheAside(client, str, ttl=60), "users", registry)
    orders = metrics.register(WriteBehind(client, "orders"), "orders", registry)
    users.get("ada"), orders.put("ada", "1"), scraped(registry)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        users.get("bob")
        os.write(write, generate_latest(registry))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with open(read, encoding="utf-8") as text:
        seen = series(text.read())
    assert seen["cachelab_reads_total", "users", "miss"] == 2
    assert seen["cachelab_writes_waiting", "orders"] == 1
    assert scraped(registry)["cachelab_reads_total", "users", "miss"] == 1


@pytest.fixture
def command(server, client):
    """A function that starts a command of cachelab and returns it with the URL that it tells."""
    started = []

    def start(*args: str) -> tuple[subprocess.Popen, str]:
        env = os.environ | {"REDIS_URL": server.url}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([*COMMAND, *args], env=env, **pipes))
        said = ""
        while not (found := re.search(r"http://\S+", said)):
            said = started[-1].stdout.readline() or pytest.fail(started[-1].stderr.read())
        return started[-1], found[0]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_command_shows_a_server_and_its_streams_until_sigterm(command, client, server):
    WriteBehind(client, "orders").put("ada", "1")
    process, url = command("metrics", "--port", "0", "--stream", "orders")
    place, seen = f"127.0.0.1:{server.port}", http(url)
    assert seen["cachelab_server_up", place] == 1 == seen["cachelab_writes_waiting", "orders"]
    assert seen["cachelab_server_memory_max_bytes", place] == 256 * 2**20
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0 and process.stderr.read() == ""


def test_a_worker_shows_what_it_has_applied_when_it_is_asked_to(command, client, tmp_path):
    _, url = command("worker", "--database", f"sqlite:///{tmp_path}/rows.db", "--metrics-port", "0")
    WriteBehind(client).put("ada", "Ada")
    while http(url)["cachelab_writes_applied_total", "writes"] < 1:
        time.sleep(0.01)
    assert http(url)["cachelab_writes_waiting", "writes"] == 0


def test_a_port_that_another_program_has_is_an_error_that_names_it(server, monkeypatch, capsys):
    monkeypatch.setenv("REDIS_URL", server.url)
    assert main(["metrics", "--port", str(server.port)]) == 2
    assert f"127.0.0.1:{server.port} is not free" in capsys.readouterr().err


def test_the_command_asks_for_the_server_that_is_meant(monkeypatch, capsys):
    for name in [one for one in os.environ if one.startswith("REDIS_")]:
        monkeypatch.delenv(name)
    assert main(["metrics", "--port", "0"]) == 2
    assert "set REDIS_URL" in capsys.readouterr().err


def test_without_the_extra_registering_is_one_error_and_importing_is_none():
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from cachelab import metrics\n"
        "try:\n    metrics.register(None, 'users')\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "run `pip install 'cachelab[metrics]'`" in done.stdout and not done.stderr


@pytest.mark.further
def test_on_a_cluster_each_shard_has_a_breaker_and_each_node_its_numbers(registry):
    with cl.Cluster(primaries=3, replicas=0) as cluster:
        client = cl.connect(cluster.url, check=False, timeout=PATIENT)
        metrics.register(client, "cluster", registry)
        seen = scraped(registry)
        assert sum(n for key, n in seen.items() if key[0] == "cachelab_server_up") == 3
        users = metrics.register(cl.CacheAside(client, str, ttl=60), "users", registry)
        orders = metrics.register(WriteBehind(client, "orders"), "orders", registry)
        users.get_many(f"user-{n}" for n in range(100)), orders.put("ada", "1")
        seen = scraped(registry)
        places = {f"127.0.0.1:{node.port}" for node in cluster.nodes}
        for family in ("cachelab_breaker_open", "cachelab_server_up"):
            assert {key[-1] for key in seen if key[0] == family} == places
        assert seen["cachelab_writes_waiting", "orders"] == 1
        lost, *others = sorted(places)
        next(node for node in cluster.nodes if lost.endswith(f":{node.port}")).freeze()
        seen = scraped(registry)
        assert [seen["cachelab_server_up", place] for place in (lost, *others)] == [0, 1, 1]


@pytest.mark.further
def test_a_node_that_is_away_is_shown_until_it_is_back_or_forgotten(registry):
    def shown() -> float | None:
        users.get_many(f"user-{n}" for n in range(50))  # the client learns who holds what
        return scraped(registry).get(("cachelab_server_up", place))

    def at_last_shown(value: float | None) -> None:
        until = time.monotonic() + PATIENT * 6
        while shown() != value:
            assert time.monotonic() < until

    with cl.Cluster(primaries=3, replicas=1) as cluster:
        client = metrics.register(cl.connect(cluster.url, check=False), "cluster", registry)
        users = cl.CacheAside(client, str, ttl=60)
        away = cluster.nodes[0]
        place = f"127.0.0.1:{away.port}"
        at_last_shown(1)
        with redis.Redis.from_url(away.url) as link:
            number = link.execute_command("CLUSTER MYID")
        away.kill()
        until = time.monotonic() + PATIENT * 6
        while place in {node.name for node in client.get_nodes()}:  # the control: it forgets
            assert shown() == 0 and time.monotonic() < until
        assert shown() == 0
        away.restart()
        at_last_shown(1)
        away.kill()
        for node in cluster.nodes[1:]:
            with redis.Redis.from_url(node.url) as link:
                link.execute_command("CLUSTER FORGET", number)
        at_last_shown(None)
