"""The contract of writes and of refreshing ahead: ours hold it, what lacks a guard breaks it.

Ours are tried plain here, and asyncio's, with what a refresh-ahead has in common with a
cache-aside, as `further`.

pytest --cache my_module:MyWriteBehind    judges a class of yours instead, by its kind
"""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import broken_writes
import pytest
from broken_writes import BROKEN, AheadByHand, Around, ByHand
from conftest import named

import cachelab as cl
from cachelab.lab import contract
from cachelab.lab.contract.failpoints import POINTS
from cachelab.lab.contract.trial import bench
from cachelab.lab.contract.workers import BehindBench
from cachelab.lab.measure.link import Link
from cachelab.writes import (
    AsyncRefreshAhead,
    AsyncWriteAround,
    AsyncWriteBehind,
    AsyncWriteThrough,
    RefreshAhead,
    Worker,
    WriteAround,
    WriteBehind,
    WriteThrough,
)

NAMES = {
    kind: {trial.__name__: sentence for sentence, trial in contract.promises_of(kind).items()}
    for kind in BROKEN
}
IMPATIENT = 2  # seconds that a broken one's call may hang
INHERITED = [trial.__name__ for trial in contract.PROMISES.values()]


class Behind:
    def __init__(self, url, database, max_length, claim_after):
        client = cl.connect(url, check=False)
        cache = cl.CacheAside(client, load=database.get, ttl=60)
        self.behind = WriteBehind(client, cache=cache, max_length=max_length)
        self.get, self.put = self.behind.get, self.behind.put
        self.worker = Worker(client, database, claim_after=claim_after, cache=cache)

    def work(self):
        self.worker.step()


class AsyncBehind:
    def __init__(self, url, database, max_length, claim_after):
        client = cl.connect_async(url)
        cache = cl.AsyncCacheAside(client, load=database.get_async, ttl=60)
        self.behind = AsyncWriteBehind(client, cache=cache, max_length=max_length)
        self.get, self.put = self.behind.get, self.behind.put
        self.step = Behind(url, database, max_length, claim_after).work

    async def work(self):
        await asyncio.to_thread(self.step)


class Through:
    form = WriteThrough

    def __init__(self, url, load, store, ttl):
        cache = cl.CacheAside(cl.connect(url, check=False), load=load, ttl=ttl)
        self.get, self.put = cache.get, self.form(cache, store).put


class ThroughAround(Through):
    form = WriteAround


class AsyncThrough:
    form = AsyncWriteThrough

    def __init__(self, url, load, store, ttl):
        cache = cl.AsyncCacheAside(cl.connect_async(url), load=load, ttl=ttl)
        self.get, self.put = cache.get, self.form(cache, store).put


class AsyncThroughAround(AsyncThrough):
    form = AsyncWriteAround


class Ahead(RefreshAhead):
    def __init__(self, url, load, ttl, grace):
        super().__init__(cl.connect(url, check=False), load=load, ttl=ttl, grace=grace)


class AsyncAhead(AsyncRefreshAhead):
    def __init__(self, url, load, ttl, grace):
        super().__init__(cl.connect_async(url), load=load, ttl=ttl, grace=grace)


OURS = {
    "write-behind": [Behind],
    "write-through": [Through, ThroughAround],
    "refresh-ahead": [Ahead],
}
OURS_ASYNC = {
    "write-behind": [AsyncBehind],
    "write-through": [AsyncThrough, AsyncThroughAround],
    "refresh-ahead": [AsyncAhead],
}
OF_A_PRODUCER = {  # what asyncio's has of its own: the worker is the same
    "puts_are_applied",
    "texts_arrive_exactly",
    "two_workers_apply_once",
    "full_streams_refuse",
    "lost_puts_are_said",
    "own_writes_are_read",
    "applied_puts_are_seen",
}
BY_HAND = {"write-behind": ByHand, "write-through": Around, "refresh-ahead": AheadByHand}


def cases(classes):
    """Each class with each promise that is of its kind alone."""
    return [
        pytest.param(kind, name, cache, id=f"{cache.__name__}-{name}")
        for kind, caches in classes.items()
        for cache in caches
        for name in BROKEN[kind]
    ]


@pytest.mark.parametrize(("kind", "name", "cache"), cases(OURS))
def test_promise(kind, name, cache, request):
    yours = request.config.getoption("--cache")
    cache = named(yours) if yours else cache
    assert contract.kind_of(cache) == kind
    assert held(cache, kind, name, but=NAMES[kind] if yours else ())


ASYNC_CASES = [
    case
    for case in cases(OURS_ASYNC)
    if case.values[2] is not AsyncBehind or case.values[1] in OF_A_PRODUCER
]


@pytest.mark.further
@pytest.mark.parametrize(("kind", "name", "cache"), ASYNC_CASES)
def test_a_promise_is_held_by_the_asyncio_twin(kind, name, cache):
    assert held(cache, kind, name)


def pytest_generate_tests(metafunc):
    """Try by each flavour half of what CI has no time for, and with --crossings all of it."""
    every = 1 if metafunc.config.getoption("--crossings") else 2
    if "ahead" in metafunc.fixturenames:
        halves = {Ahead: INHERITED[::every], AsyncAhead: INHERITED[every - 1 :: every]}
        both = [(cache, name) for cache, names in halves.items() for name in names]
        names = [f"{cache.__name__}-{name}" for cache, name in both]
        metafunc.parametrize(("ahead", "name"), both, ids=names)
    if "by_hand" in metafunc.fixturenames:
        each = [(kind, name) for kind in BY_HAND for name in BROKEN[kind]]
        metafunc.parametrize(("by_hand", "name"), each[::every])


@pytest.mark.further
def test_a_refresh_ahead_holds_what_a_cache_aside_promises(ahead, name):
    seen = contract.verdict(ahead, NAMES["refresh-ahead"][name])
    if seen and seen.startswith(contract.NOT_APPLICABLE):
        assert name in NOT_FOR | NOT_FOR_A_FLAVOUR[ahead]
    else:
        assert (seen or "held") == "held"


NOT_FOR = {"hits_are_one_command", "absence_is_forgotten", "expiries_are_spread"}
NOT_FOR_A_FLAVOUR = {
    Ahead: {"cancelled_readers_fail_nobody", "cancelled_readers_stop_no_load"},
    AsyncAhead: {"signal_handlers_may_call", "finalisers_may_call", "forked_children_may_call"},
}


@pytest.mark.further
def test_a_class_by_hand_holds_the_promises_too(by_hand, name):
    assert held(BY_HAND[by_hand], by_hand, name, but={"old_values_are_counted"})


@pytest.mark.further
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("write-behind", "killed_workers_apply_once"),
        ("write-behind", "messages_are_kept_for_each_group"),
        ("write-behind", "lost_puts_are_said"),
        ("write-through", "writers_end_alike"),
        ("refresh-ahead", "invalidate_wins_over_refreshes"),
        ("refresh-ahead", "hits_are_one_round_trip"),
    ],
)
def test_a_promise_is_held_on_a_set(crossing, a_set, kind, name):
    flavour = OURS if crossing.startswith("sync") else OURS_ASYNC
    assert contract.verdict(flavour[kind][0], NAMES[kind][name], on=a_set) is None


@pytest.fixture(scope="module")
def a_set(crossing):
    kind = {"cluster": cl.Cluster, "sentinel": cl.Sentinel}[crossing.partition("-")[2]]
    with kind(links=Link) as a_set:
        yield a_set


def held(cache, kind, name, but=()):
    """Say that a promise is held; of what is not for this kind, that it is among but."""
    seen = contract.verdict(cache, NAMES[kind][name], kind=kind)
    if seen and seen.startswith(contract.NOT_APPLICABLE):
        assert name in but
    else:
        assert (seen or "held") == "held", NAMES[kind][name]
    return True


# Each promise catches

MUTANTS = [
    pytest.param(kind, name, cache, id=f"{name}-{cache.__name__}")
    for kind, broken in BROKEN.items()
    for name, caches in broken.items()
    for cache in caches
]


@pytest.mark.parametrize(("kind", "name", "cache"), MUTANTS)
def test_what_lacks_a_guard_is_caught(kind, name, cache):
    seen = contract.verdict(cache, NAMES[kind][name], IMPATIENT, kind=kind)
    assert seen and not seen.startswith(contract.NOT_APPLICABLE)


def test_each_promise_has_a_broken_class_and_each_broken_class_a_promise():
    for kind, broken in BROKEN.items():
        own = set(NAMES[kind]) - set(INHERITED)
        assert len(NAMES[kind]) == len(contract.promises_of(kind)), "two promises have one name"
        assert broken.keys() == own and all(broken.values())
    used = {cache for broken in BROKEN.values() for caches in broken.values() for cache in caches}
    written = {
        cache
        for cache in vars(broken_writes).values()
        if inspect.isclass(cache) and cache.__module__ == broken_writes.__name__
    }
    assert written - used == set(BY_HAND.values())


@pytest.mark.further  # for the time that it takes: another pytest
def test_pytest_judges_a_class_of_yours_by_the_promises_of_its_kind():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "applied_puts"]
    run = subprocess.run(
        [*command, "--cache", "broken_writes:KeepsCopies"],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "applied_puts_are_seen" in run.stdout and "reads by three processes" in run.stdout
    assert "1 failed" in run.stdout and "passed" not in run.stdout


# The harness


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_is_killed_where_it_is_to_be(point):
    for cache in (Behind, ByHand):
        with bench(cache, 10, kind=BehindBench) as trial, trial.worker((point, "SIGKILL")) as one:
            trial.put(trial.make_behind(), {"ada": "Ada"})
            assert one.ended()
            assert ("ada" in trial.ledger.rows()) == (point not in ("begin", "commit"))
            assert trial.waiting() == (0 if point == "acked" else 1)


def test_a_kind_is_told_by_what_a_class_does_or_is_built_with_and_may_be_said():
    assert contract.kind_of(cl.CacheAside) == contract.kind_of(object) == "cache-aside"
    for kind, cache in BY_HAND.items():
        assert contract.kind_of(cache) == kind

    class Hidden:
        def __init__(self, *arguments):
            cache = Ahead(*arguments)
            self.get, self.invalidate = cache.get, cache.invalidate

    assert contract.kind_of(Hidden) == "cache-aside"
    (row,) = contract.check(Hidden, only="refreshes_arrive", kind="refresh-ahead").itertuples()
    assert row.held and not row.seen
    with pytest.raises(ValueError, match="refreshes_arrive"):
        contract.check(Hidden, only="refreshes_arrive")
    with pytest.raises(ValueError, match="kind must be one of .* not 'write-behnd'"):
        contract.check(Hidden, kind="write-behnd")


class Unbuildable(ByHand):
    def __init__(self, *arguments):
        raise RuntimeError("no table")


class Exits(ByHand):
    def work(self):
        raise SystemExit


def test_a_trial_that_does_not_end_leaves_nothing_behind(tmp_path, monkeypatch):
    class Stops(ByHand):
        def put(self, id, value):
            os.kill(os.getpid(), signal.SIGSTOP)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = NAMES["write-behind"]["puts_are_applied"]
    assert "the trial did not end" in contract.verdict(Stops, name, 0.5)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_be_built_or_ends_is_told():
    name = NAMES["write-behind"]["puts_are_applied"]
    assert "no table" in contract.verdict(Unbuildable, name, IMPATIENT)
    assert "a worker has ended, with status 1" in contract.verdict(Exits, name, IMPATIENT)
