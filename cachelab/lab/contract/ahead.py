"""Values that are refreshed ahead: old ones on purpose, and never too old."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cachelab.lab.contract.child import Child, Say, shift_clock
from cachelab.lab.contract.kinds import AheadBench
from cachelab.lab.contract.loading import DELAY
from cachelab.lab.contract.promises import promise
from cachelab.lab.contract.trial import READERS, Blocking, Broken, NotApplicable, expect, same

TTL = 0.3  # seconds until a value is to be refreshed, at the latest


@promise("no reader waits for a value that is refreshed", "refresh-ahead")
def readers_do_not_wait(trial: AheadBench) -> None:
    cache = trial.make_ahead(TTL)
    _grow_old(trial, cache)
    trial.origin.hold()
    reads = [trial.start(cache.get, "ada") for _ in range(READERS)]
    try:
        seen = {read.result(trial.patience / 2) for read in reads}
    except TimeoutError:
        raise Broken("readers wait for a refresh that is under way") from None
    same(seen, {"Ada"}, "what they got while it was under way")


@promise("a value past its ttl is refreshed once, by whatever many read it", "refresh-ahead")
def refreshes_are_made_once(trial: AheadBench) -> None:
    caches = trial.make_ahead(TTL), trial.make_ahead(TTL)
    trial.warm_pool(caches[0]), trial.warm_pool(caches[1])
    _grow_old(trial, caches[0])
    trial.origin.hold()
    reads = [trial.start(cache.get, "ada") for cache in caches for _ in range(READERS // 2)]
    expect(trial.origin.entered.wait(trial.patience), "reads past the ttl refresh nothing")
    time.sleep(0.3)  # a second load would begin by now; the count below is what judges
    loads = trial.origin.loads.count("ada")
    trial.origin.go.set()
    for read in reads:
        read.result(trial.patience)
    same(loads, 2, f"loads for the value, and for {READERS} readers of two caches past its ttl")


@promise("reads past the ttl soon give the new value", "refresh-ahead")
def refreshes_arrive(trial: AheadBench) -> None:
    cache, other = trial.make_ahead(TTL), trial.make_ahead(TTL)
    _grow_old(trial, cache)
    trial.origin.rows["ada"] = "new"
    cache.get("ada")
    for each in (cache, other):
        _soon(trial, partial(_gives, each, "new"), "the old value is read")


@promise("a value that is read often is refreshed again and again", "refresh-ahead")
def refreshes_go_on(trial: AheadBench) -> None:
    cache = trial.make_ahead(TTL)
    for number in range(4):
        trial.origin.rows["ada"] = wanted = f"value {number}"
        _soon(trial, partial(_gives, cache, wanted), f"no read gives {wanted!r}")


@promise("while the load fails the old value is given until ttl + grace", "refresh-ahead")
def old_values_bridge_failures(trial: AheadBench) -> None:
    cache, other = trial.make_ahead(TTL), trial.make_ahead(TTL)
    _grow_old(trial, cache)
    trial.origin.rows["ada"] = LookupError("the database says no")
    for _ in range(20):
        same([cache.get("ada"), other.get("ada")], ["Ada", "Ada"], "reads while the load fails")
        time.sleep(0.02)


@promise("nobody reads what is older than ttl + grace", "refresh-ahead")
def nothing_is_older_than_ttl_and_grace(trial: AheadBench) -> None:
    cache, grace = trial.make_ahead(TTL, grace=TTL), TTL
    cache.get("ada"), cache.get("bob")
    trial.origin.rows["ada"] = LookupError("the database says no")
    trial.origin.rows["bob"] = "new"
    time.sleep(TTL + grace + 0.1)
    error = trial.start(cache.get, "ada").exception(trial.patience)
    name = type(error).__name__ if error else "a value"
    same(name, "LookupError", "what a reader got whose load failed, when it was too old")
    same(cache.get("bob"), "new", "a read of a value that had become too old")


@promise("a load that fails is not tried again by each reader", "refresh-ahead")
def failing_refreshes_are_spread(trial: AheadBench) -> None:
    cache = trial.make_ahead(TTL)
    _grow_old(trial, cache)
    trial.origin.rows["ada"] = LookupError("the database says no")
    before = len(trial.origin.loads)
    for _ in range(READERS):
        cache.get("ada")
        time.sleep(0.01)
    loads = len(trial.origin.loads) - before
    expect(loads > 0, "reads past the ttl refresh nothing")
    expect(loads <= READERS / 5, f"loads for {READERS} reads while they fail: {loads}")


@promise("old values that are given are counted, in stats.stale", "refresh-ahead")
def old_values_are_counted(trial: AheadBench) -> None:
    cache = trial.make_ahead(TTL)
    if not hasattr(getattr(cache.cache, "stats", None), "stale"):
        raise NotApplicable("a cache without stats.stale")
    _grow_old(trial, cache)
    trial.origin.rows["ada"] = LookupError("the database says no")
    same(cache.cache.stats.stale, 0, "old values counted before one was given")
    for _ in range(5):
        cache.get("ada")
    same(cache.cache.stats.stale, 5, "old values counted when five were given")


@promise("invalidate wins over a refresh that is under way", "refresh-ahead")
def invalidate_wins_over_refreshes(trial: AheadBench) -> None:
    for is_read in (True, False):
        cache, other = trial.make_ahead(TTL), trial.make_ahead(TTL)
        cache.invalidate("ada")
        trial.origin.rows["ada"] = "old"
        _grow_old(trial, cache)
        trial.origin.hold(once=True)
        cache.get("ada")
        _refreshing(trial)
        trial.origin.rows["ada"] = "new"
        other.invalidate("ada")
        if is_read:
            same(other.get("ada"), "new", "a read that started after invalidate had returned")
        trial.origin.go.set()
        _stays(cache, other, "new")


@promise(
    "a refresh that was overtaken stores nothing, though the value is as before", "refresh-ahead"
)
def values_that_come_back_are_told_apart(trial: AheadBench) -> None:
    cache, other = trial.make_ahead(60 * TTL), trial.make_ahead(TTL)
    _grow_old(trial, other)
    trial.origin.rows["ada"] = "for a moment"
    trial.origin.hold(once=True)
    other.get("ada")  # the refresh has read this value
    _refreshing(trial)
    trial.origin.rows["ada"] = "Ada"
    cache.invalidate("ada")
    same(cache.get("ada"), "Ada", "a read that started after invalidate had returned")
    trial.origin.go.set()
    _stays(cache, cache, "Ada")


@promise("a hit is one round trip, past the ttl too, but for the refresh", "refresh-ahead")
def hits_are_one_round_trip(trial: AheadBench) -> None:
    cache = trial.make_ahead(60)
    _count_trips(trial, cache, "a value")
    cache = trial.make_ahead(TTL)
    cache.invalidate("ada")
    _grow_old(trial, cache)
    trial.origin.hold()
    cache.get("ada")
    _refreshing(trial)
    _count_trips(trial, cache, "an old value")


@promise("what nobody reads is not refreshed", "refresh-ahead")
def cold_keys_are_left_alone(trial: AheadBench) -> None:
    cache = trial.make_ahead(TTL, grace=TTL)
    cache.get("ada")
    loads = len(trial.origin.loads)
    time.sleep(3 * TTL)
    same(len(trial.origin.loads), loads, "loads when it had been read, and after a while")
    same(list(trial.client.scan_iter()), [], "keys after ttl + grace")


@promise("a process whose clock is wrong refreshes when the others do", "refresh-ahead")
def clocks_may_be_wrong(trial: AheadBench) -> None:
    writer = trial.make_ahead(60)
    writer.get("ada")
    trial.origin.rows["ada"] = "new"
    for hours in (-2, 2):
        said = trial.in_a_child(partial(_read_at, trial, hours))
        same(said, "Ada, 0 loads", f"a read of a fresh value, the clock {hours} hours off")


@promise("a process that is killed while it refreshes is replaced", "refresh-ahead")
def dead_refreshers_are_replaced(trial: AheadBench) -> None:
    def refresh_for_ever(say: Say) -> None:
        theirs = type(trial)(trial.kind, trial.place, trial.patience, trial.is_async)
        cache = theirs.make_ahead(TTL)
        _grow_old(theirs, cache)
        theirs.origin.hold()
        cache.get("ada")
        _refreshing(theirs)
        say("refreshing")
        time.sleep(theirs.patience)

    with Child(refresh_for_ever) as refresher:
        same(refresher.hear(trial.patience), "refreshing", "what the other process does")
    cache = trial.make_ahead(TTL)
    trial.origin.rows["ada"] = "new"
    began, most = time.monotonic(), min(DELAY, trial.patience)
    while cache.get("ada") != "new":
        took = time.monotonic() - began
        expect(took < most, f"{took:.1f} s after the refresher has died the old value is read")
        time.sleep(0.02)


def _grow_old(trial: AheadBench, cache: Blocking) -> None:
    """Have ada in the cache, and past her ttl."""
    cache.get("ada")
    time.sleep(TTL + 0.1)
    trial.origin.entered.clear()


def _refreshing(trial: AheadBench) -> None:
    """Wait until a refresh has read the row."""
    if not trial.origin.entered.wait(trial.patience):
        raise Broken("reads past the ttl refresh nothing")


def _gives(cache: Blocking, value: str) -> bool:
    return cache.get("ada") == value


def _soon(trial: AheadBench, condition: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + trial.patience / 2
    while not condition():
        if time.monotonic() > until:
            raise Broken(f"after {trial.patience / 2:g} s {otherwise}")
        time.sleep(0.02)


def _stays(cache: Blocking, other: Blocking, value: str) -> None:
    """See a value for a while, in which a refresh that has been let go would store its own."""
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        seen = [cache.get("ada"), other.get("ada")]
        same(seen, [value, value], "reads after invalidate, when the refresh has ended")
        time.sleep(0.02)


def _count_trips(trial: AheadBench, cache: Blocking, what: str) -> None:
    """See that ten hits come to Redis in ten pieces."""
    cache.get("ada"), cache.get("ada")
    before = trial.place.pieces(trial.client)
    for _ in range(10):
        cache.get("ada")
    trips = trial.place.pieces(trial.client) - before
    expect(trips <= 15, f"10 hits of {what} took {trips} round trips")


def _read_at(trial: AheadBench, hours: int, say: Say) -> Any:
    """Read with a clock that is wrong, in a child."""
    theirs = type(trial)(trial.kind, trial.place, trial.patience, trial.is_async)
    shift_clock(hours)
    value = theirs.make_ahead(60).get("ada")
    time.sleep(0.2)  # for a refresh that would begin
    say(f"{value}, {len(theirs.origin.loads)} loads")
