"""The contract suite: our caches hold every promise, and a cache that lacks one guard breaks the promise it guards.

pytest --cache my_module:MyCache    judges a cache of yours instead
"""

import importlib
import sys

import pytest
from broken_caches import BROKEN

import cachelab as cl
from cachelab.lab import contract

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
OURS = ["Sync", "Async"]


class Sync(cl.CacheAside):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(cl.connect(url, check=False), load=load, ttl=ttl, missing_ttl=missing_ttl)


class Async(cl.AsyncCacheAside):
    def __init__(self, url, load, ttl, missing_ttl):
        super().__init__(cl.connect_async(url), load=load, ttl=ttl, missing_ttl=missing_ttl)


@pytest.fixture
def judged(request):
    """The cache that --cache names, or one of ours."""
    name = request.config.getoption("--cache") or f"{__name__}:{request.param}"
    module, _, cache = name.partition(":")
    sys.path.insert(0, "")
    return getattr(importlib.import_module(module), cache)


@pytest.mark.parametrize("sentence", contract.PROMISES)
@pytest.mark.parametrize("judged", OURS, indirect=True)
def test_promise(judged, sentence):
    assert (contract.verdict(judged, sentence) or "held") == "held"


@pytest.mark.parametrize("cache", BROKEN, ids=lambda cache: cache.__name__)
def test_a_cache_that_lacks_a_guard_is_caught(cache):
    (sentence,) = [sentence for sentence in contract.PROMISES if BROKEN[cache] in sentence]
    assert contract.verdict(cache, sentence)


def test_check_returns_a_table_of_promises():
    table = contract.check(Sync, only="hit")
    assert list(table.columns) == ["promise", "held", "seen"]
    assert table["held"].all() and len(table) >= 2
    assert not contract.check(object, only="hit")["held"].any()
