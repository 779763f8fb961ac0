"""The contract suite: our caches hold every promise, a cache that lacks one guard breaks one.

pytest --cache my_module:MyCache    judges a cache of yours instead
"""

import functools
import inspect
import subprocess
import sys
from pathlib import Path

import broken_caches
import pytest
from broken_caches import BROKEN
from conftest import named

import cachelab as cl
from cachelab.lab import contract
from cachelab.lab.measure.link import Link

ROOT = Path(__file__).parent.parent
OURS = ["Sync", "Async"]
SENTENCES = {trial.__name__: sentence for sentence, trial in contract.PROMISES.items()}
IMPATIENT = 5  # seconds that a broken cache's call may hang


class Sync(cl.CacheAside):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(cl.connect(url, check=False), load=load, ttl=ttl, missing_ttl=missing_ttl)


class Async(cl.AsyncCacheAside):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(cl.connect_async(url), load=load, ttl=ttl, missing_ttl=missing_ttl)


@pytest.fixture
def judged(request):
    """The cache that --cache names, or one of ours."""
    return named(request.config.getoption("--cache") or f"{__name__}:{request.param}")


@pytest.mark.parametrize("name", SENTENCES)
@pytest.mark.parametrize("judged", OURS, indirect=True)
def test_promise(judged, name, request):
    seen = contract.verdict(judged, SENTENCES[name], request.config.getoption("--patience"))
    if seen and seen.startswith(contract.NOT_APPLICABLE):
        assert name in NOT_FOR.get(judged.__name__, SENTENCES)
    else:
        assert (seen or "held") == "held", SENTENCES[name]


NOT_FOR = {
    "Sync": {"cancelled_readers_fail_nobody", "cancelled_readers_stop_no_load"},
    "Async": {"signal_handlers_may_call", "finalisers_may_call", "forked_children_may_call"},
}


# On practice sets


FLAVOURS = {"sync": Sync, "async": Async}


@pytest.fixture(scope="module")
def a_set(crossing):
    """A cluster, or a primary under Sentinels, which a test may break: the next one mends it."""
    kind = {"cluster": cl.Cluster, "sentinel": cl.Sentinel}[crossing.partition("-")[2]]
    with kind(links=Link) as a_set:
        yield a_set


@pytest.mark.further
@pytest.mark.parametrize("name", SENTENCES)
def test_a_promise_is_held_on_a_set(crossing, a_set, name):
    judged = FLAVOURS[crossing.partition("-")[0]]
    seen = contract.verdict(judged, SENTENCES[name], on=a_set)
    if seen and seen.startswith(contract.NOT_APPLICABLE):
        assert name in NOT_FOR[judged.__name__]
    else:
        assert (seen or "held") == "held", SENTENCES[name]


@pytest.mark.further
@pytest.mark.parametrize("name", ["readers_load_once", "overtaken_loads_leave_nothing"])
def test_the_common_recipe_is_caught_on_a_set_too(crossing, a_set, name):
    assert contract.verdict(broken_caches.Recipe, SENTENCES[name], IMPATIENT, on=a_set)


# Each promise catches


MUTANTS = [(name, cache) for name, caches in BROKEN.items() for cache in caches]
OURS_BROKEN = (broken_caches.Ours, broken_caches.OursAsync)
PATCHED = [cache for _, cache in MUTANTS if issubclass(cache, OURS_BROKEN)]


@pytest.mark.parametrize(
    ("name", "cache"), MUTANTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_a_cache_that_lacks_a_guard_is_caught(name, cache):
    seen = contract.verdict(cache, SENTENCES[name], IMPATIENT)
    assert seen and not seen.startswith(contract.NOT_APPLICABLE)


@pytest.mark.parametrize("cache", PATCHED, ids=lambda cache: cache.__name__)
def test_a_cache_of_ours_that_lacks_a_guard_is_a_cache_still(cache):
    assert contract.verdict(cache, SENTENCES["hits_load_nothing"], IMPATIENT) is None


def test_each_promise_has_a_broken_cache_and_each_broken_cache_a_promise():
    assert len(SENTENCES) == len(contract.PROMISES), "two promises have one name"
    assert BROKEN.keys() == SENTENCES.keys() and all(BROKEN.values())
    written = {
        cache
        for cache in vars(broken_caches).values()
        if inspect.isclass(cache) and cache.__module__ == broken_caches.__name__
    }
    assert written - {cache for _, cache in MUTANTS} == set(OURS_BROKEN)


# The table


def test_check_returns_a_table_of_promises():
    table = contract.check(Sync, only="hit")
    assert list(table.columns) == ["promise", "held", "seen"]
    assert table["held"].all() and len(table) >= 2
    assert not contract.check(object, only="hit")["held"].any()


def test_check_takes_the_name_of_a_promise_and_refuses_what_names_none():
    assert list(contract.check(Sync, only="keys_expire")["promise"]) == [SENTENCES["keys_expire"]]
    with pytest.raises(ValueError, match="'keys_expier'"):
        contract.check(Sync, only="keys_expier")


def test_a_promise_that_is_not_for_a_kind_of_cache_is_no_broken_one_and_can_be_told():
    (row,) = contract.check(Sync, only="cancelled_readers_fail_nobody").itertuples()
    assert row.held and row.seen == f"{contract.NOT_APPLICABLE} to a plain cache"


# Strangers' caches


def decorated(get):
    @functools.wraps(get)
    def call(*args):
        return get(*args)

    return call


class Decorated:
    def __init__(self, *args):
        self.cache = Async(*args)

    @decorated
    async def get(self, id):
        return await self.cache.get(id)

    async def invalidate(self, id):
        await self.cache.invalidate(id)


class Partial:
    def __init__(self, *args):
        cache = Async(*args)
        self.get, self.invalidate = (
            functools.partial(cache.get),
            functools.partial(cache.invalidate),
        )


class Callable:
    class Method:
        def __init__(self, function):
            self.function = function

        def __call__(self, id):
            return self.function(id)

    def __init__(self, *args):
        cache = Async(*args)
        self.get, self.invalidate = self.Method(cache.get), self.Method(cache.invalidate)


class WantsAnAsyncLoad(Partial):
    def __init__(self, url, load, ttl, missing_ttl):
        if not inspect.iscoroutinefunction(load):
            raise TypeError("load must be async")
        super().__init__(url, load, ttl, missing_ttl)


@pytest.mark.parametrize("cache", [Decorated, Partial, Callable, WantsAnAsyncLoad])
def test_a_get_that_returns_what_is_awaited_is_async_whatever_it_looks_like(cache):
    assert not inspect.iscoroutinefunction(getattr(cache, "get", None))  # what it looks like
    assert contract.verdict(cache, SENTENCES["invalidate_is_seen"]) is None
    seen = contract.verdict(cache, SENTENCES["signal_handlers_may_call"])
    assert seen == f"{contract.NOT_APPLICABLE} to an async cache"


STRANGERS = """
import os, threading

class Deadlock:
    def __init__(self, url, load, ttl, missing_ttl):
        self.lock = threading.Lock()

    def get(self, id):
        with self.lock, self.lock:
            pass

class Exits(Deadlock):
    def get(self, id):
        os._exit(0)

number = 5
"""


def judge(folder, cache):
    """Run the suite's command on a cache of a learner's module, one promise of it."""
    (folder / "stranger.py").write_text(STRANGERS)
    (folder / "ends.py").write_text("import os\nos._exit(0)")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ROOT]
    command += ["-c", ROOT / "pyproject.toml", "--patience", "1", "-k", "hits_load_nothing"]
    return subprocess.run(
        [*command, ROOT / "tests", "--cache", cache],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ("stranger:Deadlock", "a call did not come back within 1 s"),
        ("stranger:Exits", "the process has ended amid the trial, with status 0"),
    ],
)
def test_a_cache_that_hangs_or_ends_the_process_fails_and_the_suite_goes_on(tmp_path, cache, said):
    run = judge(tmp_path, cache)
    assert run.returncode == 1 and said in run.stdout and "1 failed" in run.stdout


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ("strangr:Exits", "No module named 'strangr'"),
        ("stranger:Exit", "has no attribute 'Exit'"),
        ("stranger:number", "must be a class"),
        ("stranger", "must read MODULE:CLASS"),
        ("ends:Cache", "importing it ends the process"),
    ],
)
def test_a_name_that_leads_to_no_cache_gets_one_sentence(tmp_path, cache, said):
    run = judge(tmp_path, cache)
    (sentence,) = run.stderr.strip().splitlines()
    assert run.returncode == 4 and said in sentence and "Traceback" not in run.stdout
