"""The doctor: every part a row, and a way out for each that does not work."""

import re
import socket
from importlib import metadata

import pytest

from cachelab import doctor
from cachelab.__main__ import main


@pytest.fixture(autouse=True)
def healthy(monkeypatch, server, client):
    """The environment names the module's server and no database."""
    for name in ("REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "CACHELAB_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDIS_URL", server.url)


def rows() -> dict[str, dict[str, str]]:
    return {row["part"]: row for row in doctor.checks()}


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_in_a_whole_lab_every_part_that_is_needed_is_ok():
    found = rows()
    assert {"Python", "redis", "pandas", "jupyterlab", "hiredis", "server", "round trip", "memory", "database"} <= set(
        found
    )
    assert {part for part, row in found.items() if row["state"] != "ok"} <= doctor.OPTIONAL
    assert all(list(row) == ["part", "state", "detail", "mend"] for row in found.values())
    assert all((row["state"] == "ok") == (row["mend"] == "") for row in found.values())


def test_the_server_is_named_with_version_distance_and_memory(server):
    found = rows()
    assert re.fullmatch(
        rf"Valkey 9\S+ \(as Redis 7\S+\), redis://127.0.0.1:{server.port}/0 by REDIS_URL", found["server"]["detail"]
    )
    assert re.fullmatch(r"[\d.]+ ms, median of 100 PINGs", found["round trip"]["detail"])
    assert found["memory"]["detail"] == "256 MB at most, noeviction"
    assert found["client-side caching"]["state"] == "old"


def test_of_the_embedded_server_neither_port_nor_path_is_shown(monkeypatch):
    from cachelab import server

    monkeypatch.delenv("REDIS_URL")
    with server.Server() as own:
        monkeypatch.setattr(server, "embedded", lambda: own)
        told = str(doctor.checks())
        assert ", embedded" in told
        assert not any(private in told for private in (str(own.port), "127.0.0.1", own.url.split("@")[0], "/tmp"))
        doctor.client.connect(own.url).connection_pool.disconnect()


def test_a_server_that_is_away_is_a_row_with_the_way_out_and_no_password(monkeypatch):
    monkeypatch.setenv("REDIS_URL", f"redis://me:sekret@127.0.0.1:{dead_port()}/0")
    row = rows()["server"]
    assert row["state"] == "away" and "nothing listens there" in row["detail"]
    assert row["mend"].startswith("unset REDIS_URL  #")
    assert "sekret" not in str(row)


@pytest.mark.parametrize(
    "url", ["sekret", "http://:sekret@host", "redis://:sekret@host:99999/0", "redis://:sek@ret@host:x"]
)
def test_a_url_that_is_none_is_a_row_too(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)
    assert rows()["server"]["state"] == "away"
    assert not re.search("sekret|ret@", str(doctor.checks()))


@pytest.mark.parametrize(
    "url", ["postgresql://me:sekret@{}/x", "postgresql://{}/x?password=sekret", "mysql://:sekret@{}/x"]
)
def test_a_database_that_is_away_is_a_row_without_its_password(monkeypatch, url):
    monkeypatch.setenv("CACHELAB_DATABASE_URL", url.format(f"127.0.0.1:{dead_port()}"))
    row = rows()["database"]
    assert row["state"] == "away" and row["mend"].startswith("unset CACHELAB_DATABASE_URL")
    assert "sekret" not in str(row)


def test_packages_that_are_missing_or_old_are_told_with_the_command_that_installs_them(monkeypatch):
    def version(name: str, real=metadata.version) -> str:
        if name == "pandas":
            raise metadata.PackageNotFoundError(name)
        return "2.3.9" if name == "numpy" else real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = rows()
    assert [found[part]["state"] for part in ("pandas", "numpy", "redis")] == ["missing", "old", "ok"]
    assert found["numpy"]["detail"] == "2.3.9; needed: 2.4 or newer"
    assert all(
        "requirements.txt" in found[part]["mend"] or "make setup" in found[part]["mend"] for part in ("pandas", "numpy")
    )


def test_a_project_that_is_not_installed_is_a_row_too(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "metadata", lambda name: metadata.distribution("no-such-project").metadata)
    assert rows()["packages"]["state"] == "missing"


def test_lessons_that_want_a_newer_server_are_named(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    for number, needs in {"00": '"minutes": 5', "07": '"redis": "7.4"', "13": '"redis": "7.2"'}.items():
        text = f'{{\n "cells": [],\n "metadata": {{\n  "cachelab": {{\n   {needs}\n  }}\n }}\n}}'
        (tmp_path / "notebooks" / f"{number}_lesson.ipynb").write_text(text)
    monkeypatch.setattr(doctor, "_ROOT", tmp_path)
    row = rows()["lessons"]
    assert (row["state"], row["detail"]) == ("old", "this server runs 00 13, 07 in part (needs Redis 7.4)")


def test_the_table_fits_its_columns_and_the_exit_status_tells_whether_all_is_well(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and lines[-1] == "Everything that is needed works."
    assert {line.index(word) for line, word in zip(lines[:3], ("state", "ok", "ok"), strict=True)} == {
        lines[0].index("state")
    }
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{dead_port()}")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("To mend: server.\n")
