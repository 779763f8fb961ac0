"""Practice sets: whole when they have started, each node obedient, nothing left behind."""

import concurrent.futures
import os
import shutil
import socket
import stat
from pathlib import Path

import pytest
import redis
from test_server import eventually, leftovers, proc, script

import cachelab as cl
from cachelab.lab.measure.link import Link
from cachelab.server import node as module
from cachelab.server.node import Node

KINDS = [cl.Cluster, cl.Sentinel]
further = [
    pytest.mark.further,
    pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server"),
]


@pytest.fixture(scope="module")
def cluster():
    with cl.Cluster() as started:
        yield started


@pytest.fixture(scope="module")
def sentinel():
    with cl.Sentinel() as started:
        yield started


@pytest.fixture(params=["cluster", "sentinel"])
def practice(request):
    return request.getfixturevalue(request.param)


def roles(practice) -> list[str]:
    return sorted(node.role for node in practice.nodes)


def client_of(node: Node) -> redis.Redis:
    return redis.Redis.from_url(node.url, decode_responses=True, socket_timeout=0.5, retry=None)


def cluster_client(practice) -> redis.RedisCluster:
    first = practice.nodes[0]
    return redis.RedisCluster("127.0.0.1", first.port, password=first._password)


def sees_the_cluster(node: Node) -> tuple[bool, int]:
    """Return whether a node would serve all slots, and how many nodes it would send clients to."""
    state, shards = node.ask(("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
    return "cluster_state:ok" in state, sum(len(nodes) for _, _, *nodes in shards)


def seen_by(sentinel: Node) -> int:
    """Return how many other nodes a Sentinel knows."""
    asked = [("SENTINEL", what, "mymaster") for what in ("REPLICAS", "SENTINELS")]
    return 1 + sum(map(len, sentinel.ask(*asked)))


def primary_for(sentinel: Node) -> int:
    """Return the port to which a Sentinel sends clients."""
    return int(sentinel.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"))[0][1])


def ports_of(url: str) -> list[int]:
    places = url.partition("@")[2].partition("/")[0]
    return [int(place.rpartition(":")[2]) for place in places.split(",")]


@pytest.mark.parametrize("binary", [None, pytest.param("redis-server", marks=further)])
def test_a_cluster_is_whole_for_each_of_its_nodes_when_it_has_started(binary, monkeypatch):
    with cl.Cluster(binary=binary) as cluster:
        assert [sees_the_cluster(node) for node in cluster.nodes] == [(True, 6)] * 6
        assert roles(cluster) == ["primary"] * 3 + ["replica"] * 3
        with cluster_client(cluster) as client:
            assert client.set("ada", "36") and client.wait(1, 500, target_nodes="random") >= 0
    monkeypatch.setattr(cl.Cluster, "_is_whole", lambda *_: True)  # control: nobody waits
    with cl.Cluster(binary=binary) as cluster:
        assert [sees_the_cluster(node) for node in cluster.nodes] != [(True, 6)] * 6


@pytest.mark.parametrize("binary", [None, pytest.param("redis-server", marks=further)])
def test_each_sentinel_knows_all_others_when_the_set_has_started(binary, monkeypatch):
    with cl.Sentinel(binary=binary) as practice:
        assert [seen_by(node) for node in practice.nodes[3:]] == [5] * 3
        assert roles(practice) == ["primary", "replica", "replica"] + ["sentinel"] * 3
        assert {primary_for(node) for node in practice.nodes[3:]} == {practice.nodes[0].port}
    monkeypatch.setattr(cl.Sentinel, "_sees_all", lambda *_: True)  # control: nobody waits
    with cl.Sentinel(binary=binary) as practice:
        assert [seen_by(node) for node in practice.nodes[3:]] != [5] * 3


def test_every_node_asks_for_the_password_and_listens_on_this_machine_only(practice):
    for node in practice.nodes:
        with (
            pytest.raises(redis.AuthenticationError),
            redis.Redis(port=node.port, retry=None) as stranger,
        ):
            stranger.ping()
        with client_of(node) as client:
            assert client.ping()
        bound = {
            line.split()[1]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and line.split()[1].endswith(f":{node.port:04X}")
        }
        assert bound == {f"0100007F:{node.port:04X}"}


def test_a_password_stands_in_files_that_nobody_else_may_read(practice):
    for node in practice.nodes:
        folder = Path(node._process.directory)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        arguments = Path(f"/proc/{node.pid}/cmdline").read_bytes()
        assert node._password.encode() not in arguments
        assert node._password in (folder / "node.conf").read_text()  # the control


def test_a_url_names_all_that_clients_may_ask_and_hides_its_password(cluster, sentinel):
    places = [f"127.0.0.1:{node.port}" for node in (*cluster.nodes, *sentinel.nodes[3:])]
    first, watch = (practice.nodes[0]._password for practice in (cluster, sentinel))
    assert cluster.url == f"redis-cluster://:{first}@{','.join(places[:6])}"
    assert sentinel.url == f"redis-sentinel://:{watch}@{','.join(places[6:])}/mymaster"
    for practice in (cluster, sentinel):
        shown = repr(practice) + repr(practice.url) + repr(practice.nodes)
        assert practice.nodes[0]._password not in shown and str(practice.nodes[0].port) in shown


def test_a_primary_that_is_killed_is_replaced_and_comes_back_as_a_replica(practice):
    primary = next(node for node in practice.nodes if node.role == "primary")
    before, port, pid = roles(practice).count("primary"), primary.port, primary.pid
    primary.kill()
    assert primary.role == "away" and roles(practice).count("primary") == before - 1
    assert eventually(lambda: roles(practice).count("primary") == before)
    for node in practice.nodes:
        if node.role == "sentinel":  # the new primary knows before they do that it is one
            assert eventually(lambda node=node: primary_for(node) != port)
    primary.restart()
    assert primary.port == port and primary.pid != pid
    for node in practice.nodes:
        if node.role == "sentinel":  # or they look at it for ten seconds before they demote it
            node.ask(("SENTINEL", "DEBUG", "INFO-PERIOD", 100, "PUBLISH-PERIOD", 100))
    assert eventually(lambda: primary.role == "replica")


def test_a_replica_that_restarts_is_what_it_was(practice, monkeypatch):
    replica = next(node for node in practice.nodes if node.role == "replica")
    replica.restart()
    assert replica.role == "replica"
    if practice.nodes[-1].role == "sentinel":  # control: configured as at its first start
        monkeypatch.setattr(replica, "_is_new", True)
        replica.restart()
        assert replica.role == "primary"


def test_a_sentinel_that_restarts_still_knows_the_others(sentinel):
    sentinel.nodes[-1].restart()
    assert seen_by(sentinel.nodes[-1]) == 5


def test_a_frozen_node_is_away_until_it_is_thawed(practice):
    node = practice.nodes[-1]
    before = node.role
    node.freeze()
    assert node.role == "away" != before
    node.thaw()
    assert eventually(lambda: node.role == before)


def test_sets_that_start_at_once_share_nothing():
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        sets = list(pool.map(lambda kind: kind().start(), [*KINDS, cl.Sentinel]))
    try:
        nodes = [node for practice in sets for node in practice.nodes]
        assert len({node.port for node in nodes}) == len({node.pid for node in nodes}) == 18
        assert len({node._password for node in nodes}) == 3
        assert [roles(practice).count("primary") for practice in sets] == [3, 1, 1]
    finally:
        for practice in sets:
            practice.stop()


def test_a_cluster_takes_ports_whose_bus_port_is_free(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bus = taken.getsockname()[1]
        free = module._free_port_with_bus()
        offered = iter([55_536, bus - 10_000, free])
        monkeypatch.setattr(module, "_free_port", offered.__next__)
        assert module._free_port_with_bus() == free
        monkeypatch.setattr(module, "_is_free", lambda port: True)  # the control
        monkeypatch.setattr(module, "_free_port", iter([bus - 10_000, free]).__next__)
        assert module._free_port_with_bus() == bus - 10_000


def test_who_took_a_port_of_the_set_has_seen_a_password_that_nobody_uses(monkeypatch):
    tried, start = [], Node._try

    def late(node, password):
        tried.append(password)
        is_second = len(tried) == 2
        return start(node, password) and not is_second

    monkeypatch.setattr(Node, "_try", late)
    with cl.Sentinel() as practice:
        used = {node._password for node in practice.nodes}
    assert len(tried) == 12 and used == {tried[-1]} and tried[1] not in used


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_that_does_not_form_says_so_and_leaves_nothing(kind, monkeypatch):
    monkeypatch.setattr(module, "FORMED_WITHIN", 0.01)
    practice = kind()
    with pytest.raises(cl.ServerError, match="within 0.01 s"):
        practice.start()
    assert all(node._process is None for node in practice.nodes)
    assert repr(practice) == f"<{kind.__name__}, not started>"
    with pytest.raises(cl.ServerError, match="call start"):
        _ = practice.url


ENDINGS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM while a node is frozen": "s.nodes[1].freeze(); os.kill(os.getpid(), signal.SIGTERM)",
    "exception": "1 / 0",
}


@proc
def test_whatever_ends_a_process_no_node_and_no_directory_stays(tmp_path):
    def left_by(ending):
        folder = tmp_path / ending.replace(" ", "-")
        folder.mkdir()
        body = "import cachelab as cl; s = cl.Sentinel().start(); say('formed'); input(); "
        process = script(body + ENDINGS[ending], folder, stderr=-3)
        process.stdout.readline()
        seen = len(leftovers(folder))  # six directories, guards, servers
        process.communicate("\n")
        return seen, eventually(lambda: not leftovers(folder))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(left_by, ENDINGS)) == [(18, True)] * 3


@proc
def test_a_process_killed_while_its_set_forms_leaves_nothing(tmp_path):
    body = "import cachelab as cl, threading\n"
    body += "threading.Timer({}, os.kill, (os.getpid(), 9)).start(); cl.Cluster().start(); input()"
    for delay in (0.05, 0.2, 1):
        script(body.format(delay), tmp_path).communicate()
    assert eventually(lambda: not leftovers(tmp_path))


def test_a_forked_child_cannot_end_the_set(sentinel):
    child = os.fork()
    if not child:
        sentinel.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert "away" not in roles(sentinel)


def test_a_cluster_with_links_announces_their_ports():
    with cl.Cluster(links=Link) as cluster:
        first, ports = cluster.nodes[0], {node.link.port for node in cluster.nodes}
        assert set(ports_of(cluster.url)) == ports and first.port not in ports
        for node in cluster.nodes:
            [shards] = node.ask(("CLUSTER", "SLOTS"))
            assert {place[1] for _, _, *places in shards for place in places} == ports
        first.link.cut()
        assert first.role == "primary"  # it is asked beside its link
        first.restart()
        assert first.ask(("CONFIG", "GET", "cluster-announce-port"))[0][1] == str(first.announced)


def test_a_set_with_links_announces_their_ports():
    with cl.Sentinel(links=Link, replicas=1) as practice:
        primary, replica, *sentinels = practice.nodes
        assert ports_of(practice.url) == [node.link.port for node in sentinels]
        primary.link.freeze()  # Sentinels come through it, too
        for node in sentinels:
            assert eventually(lambda node=node: primary_for(node) == replica.link.port)
        assert primary.role == "primary"  # it is asked beside its link


def test_a_node_starts_and_ends_with_its_set_alone(practice):
    node, url, shown = practice.nodes[-1], practice.url, repr(practice)
    assert node.start() is node
    with pytest.raises(cl.ServerError, match="ends with its set: kill"):
        node.stop()
    with pytest.raises(cl.ServerError, match="starts with its set"), type(practice)().nodes[0]:
        pass
    assert (practice.url, repr(practice)) == (url, shown)


class Stuck:
    """A link that starts, and raises when it is told to stop."""

    port = 1

    def __init__(self, url: str):
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        raise OSError("stuck")


def test_a_link_that_does_not_stop_keeps_nothing_else_running(monkeypatch):
    monkeypatch.setattr(cl.Sentinel, "_form", lambda self: None)
    practice = cl.Sentinel(replicas=1, sentinels=1, links=Stuck).start()
    servers = [node._process.guard for node in practice.nodes]
    assert [server.poll() for server in servers] == [None] * 3
    with pytest.raises(OSError, match="stuck"):
        practice.stop()
    assert None not in [server.poll() for server in servers]


BAD = {
    "Cluster(links=True)": "links must be a function of a URL.*Link.*not True",
    "Cluster(primaries=2)": "primaries must be at least 3",
    "Cluster(primaries=True)": "primaries must be a whole number",
    "Cluster(replicas=-1)": "replicas must be at least 0",
    "Cluster(node_timeout=0)": "node_timeout must be at least 0.1",
    "Cluster(cluster_enabled=False)": "cluster_enabled is not configurable",
    "Cluster(port=1)": "port is not configurable",
    "Sentinel(replicas=0)": "replicas must be at least 1",
    "Sentinel(sentinels=0)": "sentinels must be at least 1",
    "Sentinel(sentinels='3')": "sentinels must be a whole number",
    "Sentinel(service='a b')": "service must be 1 to 100 letters",
    "Sentinel(service=None)": "service must be a str",
    "Sentinel(down_after=float('nan'))": "down_after must be a finite number",
    "Sentinel(masterauth='x')": "masterauth is not configurable",
}


@pytest.mark.parametrize("call", BAD)
def test_a_bad_argument_is_refused_by_name_and_what_it_was_for_can_be_shown(call):
    with pytest.raises((ValueError, TypeError), match=BAD[call]):
        eval(f"cl.{call}")  # noqa: S307
    kind = getattr(cl, call.partition("(")[0])
    assert repr(kind.__new__(kind)) == f"<{kind.__name__}, not started>"


@pytest.mark.parametrize(("flag", "nodes"), [("--cluster", 6), ("--sentinel", 3)])
def test_serve_keeps_a_set_and_says_its_url(flag, nodes, tmp_path):
    body = f"sys.argv = ['cachelab', 'serve', '{flag}', '--maxmemory', '4mb']\n"
    body += "from cachelab.cli.commands import main; sys.exit(main())"
    process = script(body, tmp_path)
    url = process.stdout.readline().removeprefix("export REDIS_URL=").strip()
    assert url.startswith(f"redis-{flag[2:]}://") and url.count("127.0.0.1:") == nodes
    process.send_signal(2)
    assert "has ended" in process.communicate()[0] and process.returncode == 0
    assert eventually(lambda: not leftovers(tmp_path))
