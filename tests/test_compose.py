"""docker-compose.yml keeps the Compose specification and the rules of safety; every rule is tried on a broken copy too."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH", re.I)


def broken_rules(compose: dict, example: str = EXAMPLE) -> set[str]:
    """Return the rules that a Compose file breaks, a sentence each."""
    broken = set()
    for service in compose["services"].values():
        image = service.get("image") or re.search(r"^FROM (\S+)", service["build"]["dockerfile_inline"], re.M)[1]
        user, settings = str(service.get("user", "root")), service.get("environment", {})
        rules = {
            "a published port is bound to 127.0.0.1": all(
                str(port).startswith("127.0.0.1:") for port in service.get("ports", [])
            ),
            "an image is pinned to more than its major version": re.search(r":\d+\.\d+", image),
            "a service does not run as root": user.split(":")[0] not in ("", "0", "root"),
            "a service has a health check": service.get("healthcheck", {}).get("test"),
            "a secret is required from outside": all(
                re.fullmatch(r"\$\{\w+:\?[^}]+\}", str(value)) for name, value in settings.items() if SECRET.search(name)
            ),
            "no secret stands in a command line": not any(
                re.search(rf"(?<!\$)\$\{{?\w*({SECRET.pattern})", str(service.get(key))) for key in ("command", "healthcheck")
            ),
            "privileges are given up": service.get("cap_drop") == ["ALL"]
            and "no-new-privileges:true" in service.get("security_opt", [])
            and service.get("read_only"),
        }  # fmt: skip
        broken |= {rule for rule, held in rules.items() if not held}
    required = set(re.findall(r"\$\{(\w+):\?", yaml.safe_dump(compose, width=10_000)))
    if not required <= set(re.findall(r"^(\w+)=$", example, re.M)):
        broken.add("the example names every required variable, without a value")
    if not compose["services"]["lab"]["environment"].get("JUPYTER_TOKEN"):
        broken.add("JupyterLab has a token")
    return broken


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
        ("a published port is bound to 127.0.0.1", setting(["6379:6379"], "services", "redis", "ports")),
        ("a published port is bound to 127.0.0.1", setting(["0.0.0.0:8888:8888"], "services", "lab", "ports")),
        ("an image is pinned to more than its major version", setting("redis:8", "services", "redis", "image")),
        ("an image is pinned to more than its major version", setting("redis", "services", "redis", "image")),
        (
            "an image is pinned to more than its major version",
            setting("FROM python:3-slim", "services", "lab", "build", "dockerfile_inline"),
        ),
        ("a service does not run as root", setting("0:0", "services", "lab", "user")),
        ("a service does not run as root", lambda compose: compose["services"]["postgres"].pop("user")),
        ("a service has a health check", lambda compose: compose["services"]["redis"].pop("healthcheck")),
        ("a secret is required from outside", setting("hunter2", "services", "lab", "environment", "JUPYTER_TOKEN")),
        (
            "a secret is required from outside",
            setting("${REDIS_PASSWORD:-redis}", "services", "redis", "environment", "REDISCLI_AUTH"),
        ),
        (
            "no secret stands in a command line",
            setting(["redis-server", "--requirepass", "${REDIS_PASSWORD:?}"], "services", "redis", "command"),
        ),
        (
            "no secret stands in a command line",
            setting(["CMD-SHELL", "redis-cli -a ${REDIS_PASSWORD} ping"], "services", "redis", "healthcheck", "test"),
        ),
        ("privileges are given up", setting([], "services", "redis", "cap_drop")),
        ("privileges are given up", setting(False, "services", "lab", "read_only")),
        (
            "the example names every required variable, without a value",
            setting("${FORGOTTEN:?}", "services", "lab", "environment", "FORGOTTEN"),
        ),
        ("JupyterLab has a token", lambda compose: compose["services"]["lab"]["environment"].pop("JUPYTER_TOKEN")),
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
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "-o", "json"]
    report = json.loads(subprocess.run([*check, ROOT / "docker-compose.yml", broken], capture_output=True).stdout)
    assert {error["filename"] for error in report["errors"]} == {str(broken)} and not report["parse_errors"]


def test_git_ignores_the_secrets_and_the_image_leaves_them_out():
    def ignored(name: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0

    assert ignored(".env") and not ignored(".env.example")
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert rules[0] == "*" and not any(rule.startswith("!.") for rule in rules)  # only what is named enters the image


def test_every_file_that_the_image_copies_by_name_is_let_in():
    copied = re.findall(r"^COPY (\S+) \./$", COMPOSE["services"]["lab"]["build"]["dockerfile_inline"], re.M)
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert copied and all(name == "." or f"!{name}" in rules for name in copied)
    assert all((ROOT / rule[1:]).exists() for rule in rules if rule.startswith("!"))


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server and redis-cli")
def test_redis_takes_its_settings_and_asks_for_the_password(tmp_path):
    redis, socket, password = COMPOSE["services"]["redis"], tmp_path / "s", "0123456789abcdef"
    shim = tmp_path / "redis-server"  # the real one, out of the way of anything on this machine
    shim.write_text(f'#!/bin/sh\nexec {shutil.which("redis-server")} "$@" --port 0 --unixsocket {socket}\n')
    shim.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [part.replace("$$", "$") for part in redis["command"]]
    health = [redis["healthcheck"]["test"][1], "-s", str(socket), *redis["healthcheck"]["test"][2:]]
    with subprocess.Popen(
        command, env=env | {"REDISCLI_AUTH": password}, cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as server:
        try:
            deadline = time.monotonic() + 10
            while subprocess.run(health, env=env | {"REDISCLI_AUTH": password}, capture_output=True).returncode:
                assert time.monotonic() < deadline and server.poll() is None
            assert subprocess.run(health, env=env, capture_output=True).returncode != 0  # without the password
            shown = subprocess.check_output(["ps", "-ww", "-o", "args=", "-p", str(server.pid)], text=True)
            assert "redis-server" in shown and password not in shown
        finally:
            server.terminate()
