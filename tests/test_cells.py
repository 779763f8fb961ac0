"""As each cell begins: a chart names the server that was measured, a learner hears of another."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import cachelab as cl
from cachelab.clients import answered
from cachelab.lab import cells

# A kernel, as far as cells are concerned: each line is the source of one.
KERNEL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for line in sys.stdin:
    shell.run_cell(json.loads(line)).raise_error()
    print("ran", flush=True)
"""
SETUP = "import pandas as pd\nfrom cachelab import Server, connect\nfrom cachelab.lab import charts"
DRAW = "charts.bars(pd.DataFrame({{'x': ['a'], 'y': [1]}}), 'x', 'y', title='Found', name='{}');"
USE = "from cachelab import connect\nimport cachelab.lab\nclient = connect()"
TOLD = "Another learner is at work on this server"


class Kernel:
    """A process that runs cells; an end of the block is its end."""

    def __init__(self, home, **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("REDIS")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", KERNEL],
            env=kept | {"HOME": str(home), "IPYTHONDIR": str(home)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *sources: str) -> str:
        """Run cells, and return all that they said."""
        said = []
        for source in sources:
            self._process.stdin.write(json.dumps(source) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line == "ran\n":
                    break
                said.append(line)
            else:
                raise AssertionError(f"the cell ended the kernel: {''.join(said)}")
        return "".join(said)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.communicate(timeout=20)


def server_of(folder, name: str) -> str | None:
    return json.loads((folder / f"{name}.json").read_text())["environment"].get("server")


@pytest.mark.further
@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
def test_a_figure_names_the_server_that_was_measured_last_though_it_has_ended(tmp_path):
    measure = "\nwith Server() as own:\n    connect(own.url).ping()"
    folder = tmp_path / "charts"
    with (
        cl.Server(binary="redis-server") as named,
        Kernel(tmp_path, REDIS_URL=named.url, CACHELAB_CHARTS=str(folder)) as kernel,
    ):
        client = cl.connect(named.url)
        redis = f"Redis {client.info('server')['redis_version']}"
        kernel.run(SETUP, DRAW.format("nothing"), "client = connect()", DRAW.format("named"))
        kernel.run("client.ping()", measure, "at_rest = True", DRAW.format("embedded"))
        kernel.run(DRAW.format("again"))
        kernel.run("client.ping()", DRAW.format("named_again"))
        kernel.run(f"client.ping(){measure}", DRAW.format("both"))
        kernel.run("aclient = __import__('cachelab').connect_async()")
        kernel.run("await aclient.ping()", DRAW.format("asyncio"))
        assert client.exists(cells.MARK)  # the kernel asks that server as each cell begins
    names = ("nothing", "named", "embedded", "again", "named_again", "both", "asyncio")
    seen = {name: server_of(folder, name) for name in names}
    valkey = seen["embedded"]
    assert valkey.startswith("Valkey ") and valkey == seen["again"]
    assert seen["nothing"] is None and seen["both"] == f"{redis}, {valkey}"
    assert seen["named"] == seen["named_again"] == seen["asyncio"] == redis


def test_a_stretch_in_which_no_server_answers_leaves_the_one_before(monkeypatch):
    monkeypatch.setattr(answered, "servers", set())
    monkeypatch.setattr(answered, "_before", set())
    answered.servers.add("Valkey 9.1.2")
    answered.turn()
    answered.turn()
    answered.servers.add("")  # one that has not told its name
    assert answered.names() == ["Valkey 9.1.2"]
    answered.servers.add("Redis 7.0.15")
    assert answered.names() == ["Redis 7.0.15"]
    answered.forget()
    assert answered.names() == ["Valkey 9.1.2"]


def test_a_learner_hears_once_of_another_on_the_same_named_server(tmp_path, server, client):
    with (
        Kernel(tmp_path / "ada", REDIS_URL=server.url) as ada,
        Kernel(tmp_path / "bob", REDIS_URL=server.url) as bob,
    ):
        assert TOLD not in ada.run(USE, "1", "2")
        assert 0 < client.ttl(cells.MARK) <= cells.LIVES
        told = bob.run(USE, "1")
        assert TOLD in told and "`unset REDIS_URL`" in told
        assert TOLD not in bob.run("2", "3")
        assert TOLD in ada.run("3")
    assert not client.exists(cells.MARK)


def test_neither_ones_own_kernels_nor_those_on_servers_of_their_own_are_others(
    tmp_path, server, client
):
    with (
        Kernel(tmp_path, REDIS_URL=server.url) as first,
        Kernel(tmp_path, REDIS_URL=server.url) as second,
        Kernel(tmp_path / "bob", REDIS_URL=server.url) as elsewhere,
        Kernel(tmp_path / "cid") as embedded,
    ):
        said = [first.run(USE, "1"), second.run(USE, "1"), embedded.run(USE, "1")]
        own = "own = cachelab.Server().start()\nclient = cachelab.connect(own.url)"
        said.append(elsewhere.run("import cachelab.lab", own, "1"))
        assert TOLD not in "".join(said)
        assert TOLD in elsewhere.run("client = cachelab.connect()", "2")  # control
