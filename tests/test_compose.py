"""docker-compose.yml keeps the Compose specification and the rules of safety.

Every rule is tried on a broken copy too.
"""

import argparse
import contextlib
import copy
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import cachelab as cl
from cachelab.apps.web.settings import Settings
from cachelab.cli import demo, doctor
from cachelab.cli.commands import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH", re.I)


def broken_rules(compose: dict, example: str = EXAMPLE) -> set[str]:
    """Return the rules that a Compose file breaks, a sentence each."""
    broken = set()
    always = [one for one in compose["services"].values() if "profiles" not in one]
    for service in compose["services"].values():
        image = (
            service.get("image")
            or re.search(r"^FROM (\S+)", service["build"]["dockerfile_inline"], re.M)[1]
        )
        user, settings = str(service.get("user", "root")), service.get("environment", {})
        rules = {
            "a published port is bound to 127.0.0.1": all(
                str(port).startswith("127.0.0.1:") for port in service.get("ports", [])
            ),
            "an image is pinned to more than its major version": re.search(r":v?\d+\.\d+", image),
            "a service does not run as root": user.split(":")[0] not in ("", "0", "root"),
            "a service has a health check": service.get("healthcheck", {}).get("test"),
            "a secret is required from outside": all(
                ("profiles" in service and name == "POSTGRES_PASSWORD" and value is None)
                or re.fullmatch(r"\$\{\w+:\?[^}]+\}", str(value))
                or (re.fullmatch(r"\$\{\w+:-\}", str(value)) and name in refused(service))
                for name, value in settings.items()
                if SECRET.search(name)
            ),
            "nobody is asked for a secret of what a profile leaves out": asked(service)
            <= set().union(*map(asked, always)),
            "no secret stands in a command line": not any(
                re.search(rf"(?<!\$)\$\{{?\w*({SECRET.pattern})", str(service.get(key)))
                for key in ("command", "healthcheck")
            ),
            "a disk is there to be measured": "image" in service
            or "profiles" in service  # the lab's notebooks measure it
            or any(re.fullmatch(r"\w+:/var/tmp", mount) for mount in service.get("volumes", [])),
            "privileges are given up": service.get("cap_drop") == ["ALL"]
            and "no-new-privileges:true" in service.get("security_opt", [])
            and service.get("read_only"),
        }  # fmt: skip
        broken |= {rule for rule, held in rules.items() if not held}
    required = set(re.findall(r"(?<!\$)\$\{(\w+):\?", yaml.safe_dump(compose, width=10_000)))
    if not required <= set(re.findall(r"^(\w+)=$", example, re.M)):
        broken.add("the example names every required variable, without a value")
    if not compose["services"]["lab"]["environment"].get("JUPYTER_TOKEN"):
        broken.add("JupyterLab has a token")
    return broken


def asked(service: dict) -> set[str]:
    """Return the variables without which a service is not started."""
    return set(re.findall(r"\$\{(\w+):\?", str(service.get("environment"))))


def refused(service: dict) -> set[str]:
    """Return the variables without which a service of a profile ends as soon as it is started."""
    started = str(service.get("entrypoint") or service.get("command"))
    return set(re.findall(r": \"?\$\$\{(\w+):\?[^}]+\}\"? && exec", started))


def setting(value: object, *path: str) -> Callable[[dict], None]:
    """Return a change that sets the value at a path inside a Compose file."""

    def change(compose: dict) -> None:
        for key in path[:-1]:
            compose = compose[key]
        compose[path[-1]] = value

    return change


def test_the_compose_file_breaks_no_rule():
    assert broken_rules(COMPOSE) == set()


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (
            "a published port is bound to 127.0.0.1",
            setting(["6379:6379"], "services", "redis", "ports"),
        ),
        (
            "a published port is bound to 127.0.0.1",
            setting(["0.0.0.0:8888:8888"], "services", "lab", "ports"),
        ),
        (
            "an image is pinned to more than its major version",
            setting("redis:8", "services", "redis", "image"),
        ),
        (
            "an image is pinned to more than its major version",
            setting("redis", "services", "redis", "image"),
        ),
        (
            "an image is pinned to more than its major version",
            setting("FROM python:3-slim", "services", "lab", "build", "dockerfile_inline"),
        ),
        ("a service does not run as root", setting("0:0", "services", "lab", "user")),
        (
            "a service does not run as root",
            lambda compose: compose["services"]["postgres"].pop("user"),
        ),
        (
            "a service has a health check",
            lambda compose: compose["services"]["redis"].pop("healthcheck"),
        ),
        (
            "a secret is required from outside",
            setting("hunter2", "services", "lab", "environment", "JUPYTER_TOKEN"),
        ),
        (
            "a secret is required from outside",
            setting(
                "${REDIS_PASSWORD:-redis}", "services", "redis", "environment", "REDISCLI_AUTH"
            ),
        ),
        (
            "a secret is required from outside",
            setting("", "services", "postgres", "environment", "POSTGRES_PASSWORD"),
        ),
        (
            "a secret is required from outside",
            setting(None, "services", "redis", "environment", "REDISCLI_AUTH"),
        ),
        (
            "nobody is asked for a secret of what a profile leaves out",
            setting(
                "${POSTGRES_PASSWORD:?}", "services", "postgres", "environment", "POSTGRES_PASSWORD"
            ),
        ),
        (
            "a secret is required from outside",
            setting(["/run.sh"], "services", "grafana", "entrypoint"),
        ),
        (
            "a published port is bound to 127.0.0.1",
            setting(["9090:9090"], "services", "prometheus", "ports"),
        ),
        (
            "no secret stands in a command line",
            setting(
                ["redis-server", "--requirepass", "${REDIS_PASSWORD:?}"],
                "services",
                "redis",
                "command",
            ),
        ),
        (
            "no secret stands in a command line",
            setting(
                ["CMD-SHELL", "redis-cli -a ${REDIS_PASSWORD} ping"],
                "services",
                "redis",
                "healthcheck",
                "test",
            ),
        ),
        (
            "a disk is there to be measured",
            setting([".:/cachelab"], "services", "lab", "volumes"),
        ),
        ("privileges are given up", setting([], "services", "redis", "cap_drop")),
        ("privileges are given up", setting(False, "services", "demo", "read_only")),
        (
            "a published port is bound to 127.0.0.1",
            setting(["8868:8868"], "services", "demo", "ports"),
        ),
        (
            "a secret is required from outside",
            setting("sesame", "services", "demo", "environment", "REDIS_PASSWORD"),
        ),
        ("privileges are given up", setting(False, "services", "lab", "read_only")),
        (
            "the example names every required variable, without a value",
            setting("${FORGOTTEN:?}", "services", "lab", "environment", "FORGOTTEN"),
        ),
        (
            "JupyterLab has a token",
            lambda compose: compose["services"]["lab"]["environment"].pop("JUPYTER_TOKEN"),
        ),
    ],
)
def test_a_broken_copy_is_caught(rule, change):
    compose = copy.deepcopy(COMPOSE)
    change(compose)
    assert rule in broken_rules(compose)


def test_an_example_with_a_value_or_without_a_variable_is_caught():
    rule = "the example names every required variable, without a value"
    assert rule in broken_rules(COMPOSE, EXAMPLE.replace("REDIS_PASSWORD=", "REDIS_PASSWORD=redis"))
    assert rule in broken_rules(COMPOSE, EXAMPLE.replace("JUPYTER_TOKEN=", ""))


def test_the_file_fits_the_compose_specification_and_a_misspelt_key_does_not(tmp_path):
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(TEXT.replace("healthcheck:", "healthchek:", 1), encoding="utf-8")
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "-o",
        "json",
    ]
    report = json.loads(
        subprocess.run([*check, ROOT / "docker-compose.yml", broken], capture_output=True).stdout
    )
    assert {error["filename"] for error in report["errors"]} == {str(broken)} and not report[
        "parse_errors"
    ]


def test_git_ignores_the_secrets_and_the_image_leaves_them_out():
    def ignored(name: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0

    assert ignored(".env") and not ignored(".env.example")
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert rules[0] == "*" and not any(
        rule.startswith("!.") for rule in rules
    )  # only what is named enters the image


def test_every_file_that_the_image_copies_by_name_is_let_in():
    copied = re.findall(
        r"^COPY (\S+) \./$", COMPOSE["services"]["lab"]["build"]["dockerfile_inline"], re.M
    )
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert copied and all(name == "." or f"!{name}" in rules for name in copied)
    assert all((ROOT / rule[1:]).exists() for rule in rules if rule.startswith("!"))


def test_what_is_amiss_in_the_image_is_mended_outside(monkeypatch, capsys):
    told = []
    image = COMPOSE["services"]["lab"]["build"]["dockerfile_inline"]
    monkeypatch.delenv("CACHELAB_IMAGE", raising=False)
    for variables in ([], re.findall(r"\b(CACHELAB_\w+)=(\S+)", image)):  # the first is the control
        for name, value in variables:
            monkeypatch.setenv(name, value)
        assert main(["lab", "--folder", f"{os.devnull}/work"]) == 2
        told.append((doctor._install().partition("  #")[0], capsys.readouterr().err))
    (install, refused), (install_there, refused_there) = told
    assert "docker" not in install and "LAB_USER" not in refused
    assert (
        f"#   {install_there}  " in TEXT and "#LAB_USER=" in EXAMPLE and "LAB_USER" in refused_there
    )


@pytest.mark.parametrize("name", ["grafana", "commander"])
def test_what_takes_a_password_of_its_own_does_not_start_without_one(name, tmp_path):
    service = COMPOSE["services"][name]
    [variable] = refused(service)
    line = (service.get("entrypoint") or service["command"])[-1].replace("$$", "$")
    (tmp_path / "node").write_text("#!/bin/sh\necho started\n")
    (tmp_path / "node").chmod(0o755)
    line = line.replace("/run.sh", "node")
    for password, said in {"": "", "0123456789abcdef": "started\n"}.items():
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", variable: password}
        done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True)
        assert (done.returncode == 0, done.stdout) == (bool(password), said)
        assert password or "in .env" in done.stderr


def test_what_is_mounted_from_the_repository_is_there_and_only_read():
    mounts = [
        mount.split(":")
        for service in COMPOSE["services"].values()
        for mount in service.get("volumes", [])
        if mount.startswith("./")
    ]
    assert len(mounts) == 4
    assert all((ROOT / source).is_dir() and how == "ro" for source, _, how in mounts)


def test_grafana_finds_its_dashboard_and_prometheus():
    services, place = COMPOSE["services"], ROOT / "monitoring/grafana"
    source = yaml.safe_load((place / "provisioning/datasources/prometheus.yml").read_text())
    [folder] = yaml.safe_load((place / "provisioning/dashboards/cachelab.yml").read_text())[
        "providers"
    ]
    assert source["datasources"][0]["url"] == "http://prometheus:9090" and services["prometheus"]
    mount = f"./monitoring/grafana/dashboards:{folder['options']['path']}:ro"
    assert mount in services["grafana"]["volumes"]
    assert (place / "dashboards/cachelab.json").exists()


def test_prometheus_scrapes_and_alerts_services_that_there_are():
    prometheus = yaml.safe_load((ROOT / "monitoring/prometheus.yml").read_text())
    said = re.findall(r"(\w+):\d+", json.dumps(prometheus))
    assert set(said) == {"exporter", "alertmanager"} <= COMPOSE["services"].keys()
    assert "targets/*.yml" in str(prometheus) and (ROOT / "monitoring/targets/lab.yml").exists()


CHECKS = {
    "prometheus.yml": ["promtool", "check", "config"],
    "alertmanager.yml": ["amtool", "check-config"],
}


@pytest.mark.further
@pytest.mark.parametrize("name", CHECKS)
def test_the_configurations_of_the_monitoring_are_right_and_a_misspelt_one_is_not(name, tmp_path):
    if not shutil.which(CHECKS[name][0]):
        pytest.skip("needs Debian's packages prometheus and prometheus-alertmanager")
    shutil.copytree(ROOT / "monitoring", tmp_path, dirs_exist_ok=True)
    right = subprocess.run([*CHECKS[name], tmp_path / name], capture_output=True, text=True)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace("receiver:", "reciever:").replace("rule_f", "ruel_f"))
    wrong = subprocess.run([*CHECKS[name], tmp_path / name], capture_output=True, text=True)
    assert right.returncode == 0, right.stdout + right.stderr
    assert wrong.returncode != 0


@pytest.mark.further
@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server and redis-cli")
def test_redis_takes_its_settings_and_asks_for_the_password(tmp_path):
    redis, socket, password = COMPOSE["services"]["redis"], tmp_path / "s", "0123456789abcdef"
    shim = tmp_path / "redis-server"  # the real one, out of the way of anything on this machine
    shim.write_text(
        f'#!/bin/sh\nexec {shutil.which("redis-server")} "$@" --port 0 --unixsocket {socket}\n'
    )
    shim.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [part.replace("$$", "$") for part in redis["command"]]
    health = [redis["healthcheck"]["test"][1], "-s", str(socket), *redis["healthcheck"]["test"][2:]]
    with subprocess.Popen(
        command, env=env | {"REDISCLI_AUTH": password}, cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as server:
        try:
            deadline = time.monotonic() + 30
            while subprocess.run(
                health, env=env | {"REDISCLI_AUTH": password}, capture_output=True
            ).returncode:
                assert time.monotonic() < deadline and server.poll() is None
            assert (
                subprocess.run(health, env=env, capture_output=True).returncode != 0
            )  # without the password
            shown = subprocess.check_output(
                ["ps", "-ww", "-o", "args=", "-p", str(server.pid)], text=True
            )
            assert "redis-server" in shown and password not in shown
        finally:
            server.terminate()


@contextlib.contextmanager
def containers(service: dict, folder: Path, first: int) -> Iterator[list[tuple[str, dict]]]:
    """Run a service as often as it is scaled, each at an address of its own: yield these.

    Each comes with the environment of a command in it.
    """
    places = [f"127.0.7.{first + n}" for n in range(service["scale"])]
    listening = "--bind $PLACE --bind-source-addr $PLACE"
    shims = {
        "getent": f"printf '%s STREAM\\n' {' '.join(places)}",
        "hostname": "echo $PLACE",
        "redis-cli": f'exec {shutil.which("redis-cli")} -h $PLACE "$@"',
        "redis-server": f'exec {shutil.which("redis-server")} "$@" {listening}',
    }
    for name, line in shims.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    command = [part.replace("$$", "$") for part in service["command"]]
    path = f"{folder}:{os.environ['PATH']}"
    with contextlib.ExitStack() as stack:
        environments = []
        for place in places:
            (folder / place).mkdir()
            env = {"PATH": path, "PLACE": place, "REDISCLI_AUTH": "0123456789abcdef"}
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = stack.enter_context(
                subprocess.Popen(
                    command, env=env, cwd=folder / place, start_new_session=True, **quiet
                )
            )
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
            environments.append(env)
        yield list(zip(places, environments, strict=True))


def healthy(service: dict, env: dict) -> bool:
    kind, *words = service["healthcheck"]["test"]
    command = words if kind == "CMD" else ["sh", "-c", *words]
    return not subprocess.run(command, env=env, capture_output=True).returncode


@pytest.mark.further
@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server and redis-cli")
@pytest.mark.parametrize(("name", "first"), [("cluster", 10), ("sentinel", 20)])
def test_a_set_forms_and_serves_those_who_know_its_name(name, first, tmp_path):
    service = COMPOSE["services"][name]
    with containers(service, tmp_path, first) as nodes:
        deadline = time.monotonic() + 30
        assert not healthy(service, nodes[0][1])  # control: it takes a while
        while not all(healthy(service, env) for _, env in nodes):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        [line] = re.findall(rf"^#LAB_REDIS_URL=(redis-{name}://.+)$", EXAMPLE, re.M)
        places = ",".join(place for place, _ in nodes)
        url = line.replace("${REDIS_PASSWORD}", "0123456789abcdef").replace(
            f"@{name}", f"@{places}"
        )
        client = cl.connect(url, timeout=2)
        assert client.set("ada", "36") and client.get("ada") == "36"
        shown = subprocess.check_output(["ps", "-ww", "-eo", "args="], text=True)
        assert f"{nodes[0][0]}:6379" in shown and "0123456789abcdef" not in shown


class _Jupyter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api" else 404)
        self.end_headers()

    def log_message(self, *args):
        pass


def test_the_demo_takes_the_command_that_starts_it_in_the_image():
    *_, host, place = COMPOSE["services"]["demo"]["command"]
    host, place = (word.partition("=")[2] for word in (host, place))
    port = place.rpartition("-")[2].strip("}")
    url = re.sub(r"\$\{DEMO_PORT:-(\d+)\}", r"\1", place)
    told = Settings("redis://redis:6379", "sqlite:////tmp/demo.db", url)
    assert (host, told.url) == ("0.0.0.0", f"http://127.0.0.1:{port}")
    parser = argparse.ArgumentParser()
    demo.options(parser)
    assert str(parser.parse_args([]).port) == port  # it listens there, and the port is published
    assert COMPOSE["services"]["demo"]["ports"] == [f"127.0.0.1:${{DEMO_PORT:-{port}}}:{port}"]
    assert f"127.0.0.1:{port}/health" in str(COMPOSE["services"]["demo"]["healthcheck"])


def test_the_health_check_of_the_lab_asks_it_and_no_proxy():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Jupyter) as jupyter:
        threading.Thread(target=jupyter.serve_forever).start()
        port = str(jupyter.server_port)
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:1")
        _, _, flag, code = COMPOSE["services"]["lab"]["healthcheck"]["test"]
        naive = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/api', timeout=2)"
        try:
            healthy, control, ill = (
                subprocess.run(
                    [sys.executable, flag, text], env=os.environ | proxies, capture_output=True
                ).returncode
                for text in (
                    code.replace("8888", port),
                    naive,
                    code.replace("8888/api", f"{port}/nothing"),
                )
            )
        finally:
            jupyter.shutdown()
    assert (healthy, control, ill) == (0, 1, 1)
