"""Types: the package is clean, its signatures are real, and a program that uses it is checked."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import cachelab as cl

ROOT = Path(__file__).parent.parent
RIGHT = """
import cachelab as cl

client = cl.connect("redis://localhost:6379/0", check=False, retries=0)

def load(user_id: str) -> str | None:
    return None

users = cl.CacheAside(client, load=load, ttl=300, jitter=0.1, missing_ttl=None, prefix="users:")
several = users.get_many(["user-1", "user-2"])
users.invalidate("user-1")
rate: float | None = users.stats.hit_rate
report: cl.SeedReport = cl.seed(client, count=10, method="pipeline")

async def main() -> None:
    async def load_async(user_id: str) -> str | None:
        return load(user_id)

    cache = cl.AsyncCacheAside(cl.connect_async(check), load=load_async, ttl=300)
    await cache.get("user-1")
    await cache.warm(["user-2"])

check: str | None = None
with cl.Server(maxmemory="4mb") as server, cl.UserDatabase(latency=0) as database:
    url: str = server.url
    name: str | None = database.get("user-1")
"""
WRONG = {  # a line that a checker refuses, and what it says of it
    "cl.CacheAsid": "has no attribute",
    "cl.connect(5)": "arg-type",
    "cl.CacheAside(client, load=load, tll=300)": "tll",
    "cl.CacheAside(client, load=load, ttl='300')": "arg-type",
    "cl.CacheAside(client, load=lambda: None, ttl=300)": "arg-type",
    "cl.seed(client, count='many')": "arg-type",
    "users.stats.hitz": "has no attribute",
    "number: int = cl.server_url()": "assignment",
}


def mypy(*arguments: str | Path) -> tuple[int, str]:
    """Return the exit status and the complaints of the type checker."""
    command = [sys.executable, "-m", "mypy", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_the_package_passes_the_type_checker():
    status, said = mypy()
    assert status == 0, said


def test_a_program_that_uses_the_package_is_checked_against_its_types(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(RIGHT)
    status, said = mypy("--strict", program)
    assert status == 0, said
    program.write_text(RIGHT + "\n".join(WRONG))
    said = mypy("--strict", program)[1].splitlines()
    first = len(RIGHT.splitlines()) + 1
    for number, (line, complaint) in enumerate(WRONG.items(), first):
        assert any(f"program.py:{number}: " in one and complaint in one for one in said), line


SERVERS = [cl.Server, cl.Cluster, cl.Sentinel, cl.UserDatabase]
PUBLIC = [cl.CacheAside, cl.AsyncCacheAside, *SERVERS]
FUNCTIONS = [cl.connect, cl.connect_async, cl.server_url, cl.seed, cl.seed_async, cl.generate_users]


@pytest.mark.parametrize("public", PUBLIC + FUNCTIONS, ids=lambda public: public.__name__)
def test_a_signature_shows_each_argument_with_its_type(public):
    parameters = inspect.signature(public).parameters
    untyped = [name for name, one in parameters.items() if one.annotation is one.empty]
    assert not untyped and "args" not in parameters and "kwargs" not in parameters


@pytest.mark.parametrize("cache", [cl.CacheAside, cl.AsyncCacheAside])
def test_a_cache_shows_its_arguments_with_their_defaults(cache):
    parameters = inspect.signature(cache).parameters
    defaults = {
        name: one.default for name, one in parameters.items() if one.default is not one.empty
    }
    assert list(parameters)[:3] == ["client", "load", "ttl"]
    wanted = {"jitter": 0.1, "missing_ttl": 30, "prefix": "cache:", "load_many": None}
    wanted |= {"lease": 2.5, "max_loads": 20, "max_value_bytes": 2**20}
    assert wanted.items() <= defaults.items()


@pytest.mark.parametrize("cache", [cl.CacheAside, cl.AsyncCacheAside])
def test_a_misspelt_argument_names_the_class(cache):
    with pytest.raises(TypeError, match=rf"\b{cache.__name__}\b.*'tll'"):
        cache(None, load=str.upper, tll=300)
