"""The database: alike on SQLite and PostgreSQL, sync and async; as many connections as it says."""

import ast
import asyncio
import gc
import inspect
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from traceback import TracebackException

import numpy as np
import pytest
from conftest import at_best
from sqlalchemy import create_engine, event, exc, make_url, text

from cachelab.database import UserDatabase
from cachelab.errors import CachelabError
from cachelab.seeder import generate_users

POSTGRES = os.environ.get("CACHELAB_TEST_POSTGRES", "")
without_postgres = pytest.mark.skipif(
    not POSTGRES, reason="CACHELAB_TEST_POSTGRES names no PostgreSQL to test on"
)


def sql(url, *statements):
    """Run statements as another user of the same database would; return the last one's rows."""
    scheme = (
        "postgresql+psycopg"
        if make_url(url).get_backend_name().startswith("postgres")
        else "sqlite"
    )
    engine = create_engine(make_url(url).set(drivername=scheme))
    with engine.begin() as connection:
        rows = [connection.execute(text(statement)) for statement in statements][-1]
        rows = rows.fetchall() if rows.returns_rows else []
    engine.dispose()
    return rows


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.further, without_postgres])]
)
def url(request, monkeypatch):
    monkeypatch.delenv("CACHELAB_DATABASE_URL", raising=False)
    if request.param == "sqlite":
        return None
    sql(POSTGRES, "DROP TABLE IF EXISTS cachelab_users")
    return POSTGRES


@pytest.fixture
def db(url):
    with UserDatabase(url, latency=0) as db:
        yield db


def test_a_value_that_was_put_comes_back_exactly(db):
    for value in ("", "0", "null", "naïve ☃ 🎈", "x" * 2**20):
        db.put("user-1", value)
        assert db.get("user-1") == value


def test_the_async_side_sees_what_the_sync_side_wrote_and_the_reverse(db):
    async def main():
        db.put("user-1", "sync")
        assert await db.get_async("user-1") == "sync"
        await db.put_async("user-1", "async")
        assert db.get("user-1") == "async"

    asyncio.run(main())


def test_an_unknown_user_is_none(db):
    assert db.get("nobody") is None
    assert asyncio.run(db.get_async("nobody")) is None


IDS = [
    "a b",
    "a\nb",
    "a\r\nFLUSHALL\r\n",
    "user-*",
    "user-%",
    "u_er-1",
    "user-1",
    "User-1",
    "{u}",
    "é",
    "e\u0301",
    "';--",
    ":id",
]


def test_ids_that_look_alike_are_kept_apart(db):
    for id in IDS:
        db.put(id, f"value of {id}")
    assert [db.get(id) for id in IDS] == [f"value of {id}" for id in IDS]


def test_nul_characters_are_kept_or_refused_in_words(db):
    if db.url.startswith("sqlite"):
        db.put("a\0b", "1")
        assert (db.get("a\0b"), db.get("a")) == ("1", None)
    else:
        with pytest.raises(ValueError, match="NUL"):
            db.put("a\0b", "1")


def test_reads_and_writes_are_counted_across_threads_and_tasks(db):
    def work(n):
        db.get("user-1")
        db.put("user-1", str(n))
        asyncio.run(db.get_async("user-1"))
        asyncio.run(db.put_async("user-1", str(n)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert (db.reads, db.writes) == (80, 80)


def test_fill_writes_the_generated_users_without_counting_them(db):
    db.fill(1000, seed=7)
    assert (db.reads, db.writes) == (0, 0)
    assert sorted(sql(db.url, "SELECT id, value FROM cachelab_users")) == sorted(
        generate_users(1000, seed=7)
    )


def test_fill_replaces_users_and_leaves_the_others(db):
    db.put("user-1", "old")
    db.put("someone else", "stays")
    db.fill(10, seed=1)
    assert db.get("user-1") == dict(generate_users(10, seed=1))["user-1"]
    assert db.get("someone else") == "stays"


def test_a_fill_that_fails_changes_nothing_and_spoils_no_connection(db, monkeypatch):
    def interrupted(count, seed):
        yield from generate_users(10_001, seed=seed)
        raise KeyboardInterrupt

    monkeypatch.setattr("cachelab.database.generate_users", interrupted)
    with pytest.raises(KeyboardInterrupt):
        db.fill(20_000)
    assert sql(db.url, "SELECT count(*) FROM cachelab_users") == [(0,)]
    db.put("user-1", "written after it")
    assert sql(db.url, "SELECT count(*) FROM cachelab_users") == [(1,)]


def test_a_transaction_is_written_whole_or_not_at_all_and_counts_as_one_write(db):
    db.put("user-1", "old")
    db.writes = 0
    with db.transaction() as connection:
        db.write(connection, {"user-1": None, "user-2": "new"})
    with pytest.raises(ZeroDivisionError), db.transaction() as connection:
        db.write(connection, {"user-2": None})
        raise ZeroDivisionError
    assert (db.get("user-1"), db.get("user-2"), db.writes) == (None, "new", 1)


def test_an_interrupt_within_a_statement_reaches_who_waits_and_the_next_transaction_works(db):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), db.transaction() as connection:
        db.write(connection, {"ada": "undone"})
        event.listen(connection, "before_cursor_execute", interrupted)
        connection.exec_driver_sql("SELECT 1")
    with db.transaction() as connection:
        db.write(connection, {"bob": "b"})
    assert (db.get("ada"), db.get("bob")) == (None, "b")


def test_a_transaction_waits_for_a_lock_no_longer_than_it_may(db):
    with db.transaction() as holder:
        db.write(holder, {"user-1": "1"})
        with pytest.raises(exc.OperationalError, match="locked|lock timeout"):
            with db.transaction(patience=0.05) as other:
                db.write(other, {"user-1": "2"})
    db.put("user-1", "3")
    assert db.get("user-1") == "3"
    if db.url.startswith("sqlite"):  # a connection has the patience of other calls again
        with db._engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 600_000


def test_latency_is_added_to_each_call_and_can_be_changed(db):
    def seconds(call, *arguments):
        start = time.perf_counter()
        call(*arguments)
        return time.perf_counter() - start

    db.latency = 0.2
    assert seconds(db.get, "user-1") >= 0.2
    assert seconds(db.put, "user-1", "x") >= 0.2
    assert seconds(lambda: asyncio.run(db.get_async("user-1"))) >= 0.2
    assert seconds(lambda: asyncio.run(db.put_async("user-1", "x"))) >= 0.2

    def is_changed() -> bool:
        db.latency = iter([0.3, 0.0]).__next__
        return seconds(db.get, "user-1") >= 0.3 > seconds(db.get, "user-1")

    assert at_best(is_changed)


def seconds_for_nine(connections, url, run):
    with UserDatabase(url, latency=0.05, connections=connections) as db:
        run(db)  # opens the connections
        start = time.perf_counter()
        assert run(db) == [None] * 9
        return time.perf_counter() - start


def nine_threads(db):
    with ThreadPoolExecutor(9) as pool:
        return list(pool.map(db.get, ["user-1"] * 9))


def nine_tasks(db):
    async def main():
        return await asyncio.gather(*[db.get_async("user-1") for _ in range(9)])

    return asyncio.run(main())


@pytest.mark.parametrize("run", [nine_threads, nine_tasks])
def test_overload_queues_behind_the_connections(url, run):
    one, three = (seconds_for_nine(connections, url, run) for connections in (1, 3))
    assert one >= 0.45
    assert three >= 0.15
    # the control: with enough connections nobody waits
    assert at_best(lambda: seconds_for_nine(9, url, run) < one)


def test_one_database_serves_successive_event_loops_and_several_at_once(db):
    db.put("user-1", "x")

    def loop(_):
        async def main():
            return await asyncio.gather(*[db.get_async("user-1") for _ in range(15)])

        return asyncio.run(main())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(loop, range(12))) == [["x"] * 15] * 12
    assert len(db._by_loop.all()) <= 5  # those that ended are forgotten


def test_a_cancelled_call_gives_its_connection_back(url):
    async def main():
        with UserDatabase(url, latency=60, connections=1) as db:
            call = asyncio.create_task(db.get_async("user-1"))
            while not db.reads:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            call.cancel()
            await asyncio.wait([call])
            db.latency = 0
            assert call.cancelled()
            assert await asyncio.wait_for(db.get_async("user-1"), 30) is None

    asyncio.run(main())


def test_readers_and_writers_at_once_never_find_it_locked(db):
    db.fill(100)

    def work(n):
        for i in range(30):
            db.put(f"user-{i}", str(n)) if n % 2 else db.get(f"user-{i}")
        if n == 0:
            db.fill(5000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_processes_that_open_it_at_once_share_its_data(url, tmp_path):
    shared = url or f"sqlite:///{tmp_path}/users.db"
    code = (
        "import sys, cachelab.database as d; "
        "d.UserDatabase(sys.argv[1], latency=0).put(sys.argv[2], 'here')"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, shared, f"child-{n}"]) for n in range(4)
    ]
    assert [child.wait() for child in children] == [0] * 4
    with UserDatabase(shared, latency=0) as db:
        assert [db.get(f"child-{n}") for n in range(4)] == ["here"] * 4


def test_a_child_process_opens_the_private_file_by_url_and_leaves_it_there(monkeypatch):
    monkeypatch.delenv("CACHELAB_DATABASE_URL", raising=False)
    with UserDatabase(latency=0) as db:
        code = (
            "import sys, cachelab.database as d; "
            "d.UserDatabase(sys.argv[1], latency=0).put('user-1', 'child')"
        )
        subprocess.run([sys.executable, "-c", code, db.url], check=True)
        assert db.get("user-1") == "child"


def folder(db):
    return Path(db.url.removeprefix("sqlite:///")).parent


def test_the_default_file_is_private_and_goes_with_close_or_collection(monkeypatch):
    monkeypatch.delenv("CACHELAB_DATABASE_URL", raising=False)
    with UserDatabase() as closed:
        assert stat.S_IMODE(folder(closed).stat().st_mode) == 0o700
    assert not folder(closed).exists()
    collected = UserDatabase(latency=0)
    asyncio.run(collected.get_async("user-1"))
    kept = folder(collected)
    assert kept.exists()
    del collected
    gc.collect()
    assert not kept.exists()


def test_the_default_file_goes_with_the_process_but_not_with_a_forked_child():
    code = """
import os, sys, cachelab.database as d
db = d.UserDatabase(latency=0)
if os.fork() == 0:
    sys.exit()
os.wait()
db.put("user-1", "x")
print(db.url.removeprefix("sqlite:///"), db.get("user-1"))
"""
    environment = {
        name: value for name, value in os.environ.items() if name != "CACHELAB_DATABASE_URL"
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    path, value = ended.stdout.split()
    assert value == "x"
    assert not Path(path).parent.exists()


def test_a_named_file_stays_after_close(tmp_path):
    with UserDatabase(f"sqlite:///{tmp_path}/users.db", latency=0) as db:
        db.put("user-1", "x")
    with UserDatabase(f"sqlite:///{tmp_path}/users.db", latency=0) as db:
        assert db.get("user-1") == "x"


def test_the_environment_names_the_database_and_a_bare_database_url_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody.else/theirs")
    monkeypatch.setenv("CACHELAB_DATABASE_URL", f"sqlite:///{tmp_path}/users.db")
    with UserDatabase() as db:
        assert folder(db) == tmp_path
    monkeypatch.delenv("CACHELAB_DATABASE_URL")
    with UserDatabase() as db:
        assert folder(db).name.startswith("cachelab-db-")


def test_other_tables_and_other_rows_are_left_alone(url, tmp_path):
    url = url or f"sqlite:///{tmp_path}/users.db"
    sql(
        url,
        "DROP TABLE IF EXISTS theirs",
        "CREATE TABLE theirs (x TEXT)",
        "INSERT INTO theirs VALUES ('kept')",
    )
    for _ in range(2):
        with UserDatabase(url, latency=0) as db:
            db.fill(10)
            db.put("mine", "x")
    assert sql(url, "SELECT x FROM theirs") == [("kept",)]
    sql(url, "DROP TABLE theirs")


def test_a_closed_database_says_so_and_may_be_closed_again(db):
    db.close()
    db.close()
    for call in (
        lambda: db.get("user-1"),
        lambda: db.fill(1),
        lambda: asyncio.run(db.put_async("user-1", "x")),
    ):
        with pytest.raises(CachelabError, match="closed"):
            call()


@pytest.mark.parametrize(
    "arguments",
    [
        {"latency": -1},
        {"latency": "2"},
        {"latency": float("nan")},
        {"latency": None},
        {"latency": True},
        {"latency": 1e300},
        {"latency": 10**400},
    ]
    + [
        {"connections": 0},
        {"connections": 2.5},
        {"connections": 10**400},
        {"connections": True},
        {"connections": None},
    ]
    + [
        {"url": 5},
        {"url": "nonsense"},
        {"url": "mysql://h/d"},
        {"url": "sqlite://"},
        {"url": "sqlite:///:memory:"},
        {"url": "sqlite:////tmp/users.db?mode=ro"},
        {"url": "sqlite://host/tmp/users.db"},
    ],
    ids=lambda arguments: ascii(arguments)[:40],
)
def test_bad_settings_are_refused_by_name(arguments, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        UserDatabase(**arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("id", [None, 5, b"x", "", "x" * 513, "\ud800"])
def test_bad_ids_are_refused_before_any_statement(db, id):
    calls = [db.get, lambda id: db.put(id, "x"), lambda id: asyncio.run(db.get_async(id))]
    for call in [*calls, lambda id: asyncio.run(db.put_async(id, "x"))]:
        with pytest.raises((TypeError, ValueError), match="user_id"):
            call(id)
    assert (db.reads, db.writes) == (0, 0)


@pytest.mark.parametrize("value", [None, 5, b"x", "\ud800"])
def test_bad_values_and_bad_counts_write_nothing(db, value):
    with pytest.raises((TypeError, ValueError), match="value"):
        db.put("user-1", value)
    with pytest.raises((TypeError, ValueError), match="count"):
        db.fill(-5)
    assert sql(db.url, "SELECT count(*) FROM cachelab_users") == [(0,)]


def test_a_latency_set_to_nonsense_is_refused_before_the_statement(db):
    for latency in ("5", -1, lambda: -1):
        db.latency = latency
        with pytest.raises((TypeError, ValueError), match="latency"):
            db.put("user-1", "x")
    assert db.writes == 0


def test_numbers_of_any_type_are_taken_as_the_numbers_they_are(monkeypatch):
    monkeypatch.delenv("CACHELAB_DATABASE_URL", raising=False)
    with UserDatabase(latency=Fraction(1, 1000), connections=np.uint8(2)) as db:
        db.fill(np.int32(300), seed=np.uint8(200))
        for latency in (np.float32(0.001), Decimal("0.001"), np.uint8(0), lambda: np.int8(0)):
            db.latency = latency
            assert db.get("user-300")
        assert asyncio.run(db.get_async("user-300")) and type(db.connections) is int


@pytest.mark.parametrize("latency", [1e300, lambda: 1e300, lambda: 10**400, lambda: "2"])
def test_a_latency_that_nobody_can_wait_for_is_refused_before_the_statement(db, latency):
    with pytest.raises(OverflowError):
        time.sleep(1e300)  # control: it would fail after the statement, and name nothing
    db.latency = latency
    with pytest.raises((TypeError, ValueError), match="^latency must be"):
        db.put("user-1", "x")
    assert db.writes == 0


def test_a_folder_of_any_name_can_hold_the_private_file(monkeypatch, tmp_path):
    monkeypatch.delenv("CACHELAB_DATABASE_URL", raising=False)
    folder = tmp_path / "50% of what? #é@"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with UserDatabase(latency=0) as db, UserDatabase(db.url, latency=0) as again:
        db.put("user-1", "x")
        assert again.get("user-1") == "x" and str(folder) in make_url(db.url).database
    assert not list(folder.iterdir())


UNSHOWN = [
    b"postgresql://me:sesame@127.0.0.1/d",
    ["postgresql://me:sesame@127.0.0.1/d"],
    type("Url", (), {"__str__": lambda self: "sesame", "__repr__": lambda self: "sesame"})(),
    "postgresql://me:\udcffsesame@127.0.0.1/d",
    "postgresql://me:a@sesame@127.0.0.1/d",
    "postgresql://me:a/sesame@127.0.0.1:1/d",
    "postgresql://me@sesame@127.0.0.1/d",
    "postgresql://me/a:sesame@127.0.0.1/d",
    "postgresql://me:sesame",
    "postgresql:me:sesame@127.0.0.1/d",
    "postgresql://me:sesame@127.0.0.1:1/d",
    "postgresql://127.0.0.1:1/d?password=a@sesame",
    "postgresql://127.0.0.1:1/d?password=sesame&connect_timeout=1",
    "mysql://me:sesame@127.0.0.1/d",
    "sqlite://me:sesame@127.0.0.1/d.db",
    "sqlite:////tmp/d.db?password=sesame",
]


@pytest.mark.parametrize("url", UNSHOWN, ids=range(len(UNSHOWN)))
def test_no_error_and_no_variable_of_its_traceback_shows_a_password(monkeypatch, url):
    pytest.importorskip("psycopg")
    monkeypatch.setenv("CACHELAB_DATABASE_URL", url if isinstance(url, str) else "")
    with pytest.raises((CachelabError, ValueError, TypeError)) as caught:
        UserDatabase(url)
    assert "sesame" not in everything_told(caught.value)
    if isinstance(url, str):
        with pytest.raises((CachelabError, ValueError)) as caught:
            UserDatabase()
    assert "sesame" not in everything_told(caught.value)


def everything_told(error: BaseException) -> str:
    """What a tool shows that writes tracebacks with local variables, those of this file apart."""
    told = TracebackException.from_exception(error, capture_locals=True)
    link = told
    while link:
        link.stack[:] = [frame for frame in link.stack if frame.filename != __file__]
        link = link.__cause__ or link.__context__
    return "".join(told.format())


def test_a_password_among_the_variables_would_be_seen():
    with pytest.raises(Exception, match="parse") as caught:
        make_url("sesame")
    assert "sesame" in everything_told(caught.value)


def test_a_database_that_was_refused_can_be_shown():
    for arguments in ({"url": "postgresql://me:a@sesame@h/d"}, {"latency": -1}, {"url": b"sesame"}):
        refused = UserDatabase.__new__(UserDatabase)
        with pytest.raises((TypeError, ValueError)):
            refused.__init__(**arguments)
        assert repr(refused).startswith("UserDatabase('not opened'") and "sesame" not in repr(
            refused
        )


def test_an_open_database_holds_its_url_where_no_dump_of_it_shows_it(tmp_path):
    with UserDatabase(f"sqlite:///{tmp_path}/sesame.db", latency=0) as db:
        assert type(db.url) is str and db.url.endswith("sesame.db")
        shown = {name: repr(value) for name, value in vars(db).items()}
        assert shown["_url"] == "<secret>" and "sesame" in shown["name"]  # control: a file is shown


def test_an_unreachable_server_is_named_with_a_remedy_and_without_the_password():
    pytest.importorskip("psycopg")
    with pytest.raises(
        CachelabError, match=r"(?s)127\.0\.0\.1:1/.*CACHELAB_DATABASE_URL"
    ) as caught:
        UserDatabase("postgresql://me:s3cret@127.0.0.1:1/users")
    assert "s3cret" not in str(caught.value)


def test_a_url_that_cannot_be_read_does_not_give_its_password_away():
    with pytest.raises(ValueError, match="url must be") as caught:
        UserDatabase("postgresql://me:s3cret@host:port/users")
    assert "s3cret" not in str(caught.value)


def test_a_file_that_cannot_be_opened_is_named():
    with pytest.raises(CachelabError, match="/nowhere/users.db"):
        UserDatabase("sqlite:////nowhere/users.db")


def test_without_psycopg_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(CachelabError, match=r"pip install 'cachelab\[postgres\]'"):
        UserDatabase("postgresql://me:s3cret@localhost/users")


@pytest.mark.further
@without_postgres
@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_the_usual_spellings_of_a_postgresql_url_work_and_repr_hides_the_password(scheme):
    url = make_url(POSTGRES).set(drivername=scheme).render_as_string(hide_password=False)
    with UserDatabase(url, latency=0) as db, UserDatabase(db.url) as again:
        assert make_url(POSTGRES).password not in repr(db)
        assert make_url(again.url).password == make_url(POSTGRES).password


def test_importing_the_module_does_not_load_sqlalchemy():
    code = "import sys, cachelab.database; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def code(function, substitutions=()):
    """The text of a method without its docstring, after the substitutions and in one spelling."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    del tree.body[0].body[0]
    text = ast.unparse(tree)
    for old, new in substitutions:
        text = text.replace(old, new)
    return ast.unparse(ast.parse(text))


@pytest.mark.parametrize("name", ["get", "put"])
def test_the_twins_read_alike(name):
    sync, other = getattr(UserDatabase, name), getattr(UserDatabase, f"{name}_async")
    table = [
        ("_connect_async", "_engine.connect"),
        ("_async", ""),
        ("async ", ""),
        ("await ", ""),
        ("asyncio.", "time."),
    ]
    assert code(other, table) == code(sync)


def test_a_password_in_the_query_is_not_shown():
    with pytest.raises(CachelabError) as caught:
        UserDatabase("postgresql://127.0.0.1:1/x?password=sesame-open")
    assert "sesame-open" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_a_child_writes_is_not_lost_when_its_parent_closes_the_database(tmp_path):
    db = UserDatabase(f"sqlite:///{tmp_path}/users.db", latency=0)
    db.put("ada", "1")  # its connection stays open
    parent, child = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            for value in "23":
                db.put("ada", value)
                child.send(b".")
                child.recv(1)  # at the end until it is killed, its connection open
        finally:
            os._exit(1)
    try:
        parent.recv(1)
        db.close()  # the last that is open, as far as this process knows
        parent.send(b".")
        parent.recv(1)
        with UserDatabase(db.url, latency=0) as other:
            assert other.get("ada") == "3"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        parent.close(), child.close()
