"""The dashboard's door; what comes in by a token is tried in test_browser.py."""

import doctest
import importlib
import subprocess
import sys

DASHBOARD = "cachelab.lab.panels.dashboard"


def test_a_host_that_others_reach_is_refused_without_a_token():
    command = [sys.executable, "-m", DASHBOARD, "--host=0.0.0.0", "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "--host=0.0.0.0 lets others than this machine in"
    )


def test_the_example_of_its_door_holds():
    module = importlib.import_module(f"{DASHBOARD}.__main__")  # which pytest takes no doctest from
    assert doctest.testmod(module) == (0, 1)
