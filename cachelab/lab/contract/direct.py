"""Writes that reach the database at once: what readers see of them, and two writers of one key."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from cachelab.lab.contract.child import Child, Say
from cachelab.lab.contract.kinds import Commit, WritesBench
from cachelab.lab.contract.loading import DELAY
from cachelab.lab.contract.promises import promise
from cachelab.lab.contract.trial import Broken, expect, same

SOON = 0.3  # seconds for a call that waits for nobody, or that has begun to wait
TTL = 0.5  # seconds that an old value may be read after a crash


@promise("when put returns the row is committed, and every read gives it", "write-through")
def puts_are_seen(trial: WritesBench) -> None:
    cache, other = trial.make(), trial.make()
    for value in ("new", "", "newest"):
        same([cache.get("ada"), other.get("ada")], [trial.origin.rows["ada"]] * 2, "reads before")
        cache.put("ada", value)
        same(trial.origin.rows["ada"], value, "the row after put")
        same([cache.get("ada"), other.get("ada")], [value] * 2, "reads after put")
    cache.put("nobody", "created")
    same([cache.get("nobody"), other.get("nobody")], ["created"] * 2, "reads of a new row")


@promise("what the database refuses is read by nobody, before or after", "write-through")
def refused_puts_are_not_read(trial: WritesBench) -> None:
    cache, other = trial.make(), trial.make()
    cache.get("ada")
    held = trial.hold_commit("new", error=LookupError("the database says no"))
    writer = _begun(trial, held, cache.put, "ada", "new")
    reader = trial.start(other.get, "ada")  # it may wait for what comes of the write
    time.sleep(SOON)
    held.go.set()
    same(reader.result(trial.patience), "Ada", "a read while the put was under way")
    error = writer.exception(trial.patience)
    same(type(error), LookupError, "what the writer got")
    same([cache.get("ada"), other.get("ada")], ["Ada", "Ada"], "reads after it")


@promise("two writers of one key leave in the cache what the database has", "write-through")
def writers_end_alike(trial: WritesBench) -> None:
    cache, other = trial.make(), trial.make()
    for is_committed in (True, False):
        for is_read in (True, False):
            id = f"{is_committed} {is_read}"
            cache.get(id)
            held = trial.hold_commit(f"first {id}", after=is_committed)
            first = _begun(trial, held, cache.put, id, f"first {id}")
            second = trial.start(other.put, id, f"second {id}")
            _wait(second)
            if is_read:
                _wait(trial.start(other.get, id))
            held.go.set()
            first.result(trial.patience), second.result(trial.patience)
            row = trial.origin.rows[id]
            when = "after" if is_committed else "before"
            what = f"reads at rest, the first writer held {when} its commit"
            same([cache.get(id), other.get(id)], [row, row], what)


@promise("a load that a put overtakes leaves nothing behind", "write-through")
def overtaken_by_puts(trial: WritesBench) -> None:
    cache, other = trial.make(), trial.make()
    trial.origin.rows["ada"] = "old"
    trial.origin.hold(once=True)
    reader = trial.start_read(other)
    cache.put("ada", "new")
    trial.origin.go.set()
    reader.result(trial.patience)
    same([cache.get("ada"), other.get("ada")], ["new", "new"], "reads at rest")


@promise(
    "a writer that dies after its commit leaves the old value for ttl at most", "write-through"
)
def dead_writers_leave_little(trial: WritesBench) -> None:
    def commit_and_wait(say: Say) -> None:
        theirs = type(trial)(trial.kind, trial.place, trial.patience, trial.is_async)
        held = theirs.hold_commit("new", after=True)
        cache = theirs.make(ttl=TTL)
        cache.get("ada")
        writer = _begun(theirs, held, cache.put, "ada", "new")
        say("committed")
        writer.result()

    cache = trial.make(ttl=TTL)
    with Child(commit_and_wait) as writer:
        same(writer.hear(trial.patience), "committed", "what the writer has done")
    trial.origin.rows["ada"] = "new"
    cache.get("ada")
    time.sleep(TTL)
    began = time.monotonic()
    same(cache.get("ada"), "new", f"a read {TTL} s after the writer had died")
    took = time.monotonic() - began
    expect(took < DELAY, f"a read after the writer had died took {took:.1f} s")


@promise("a put that cannot reach Redis is committed, and says what it left", "write-through")
def puts_without_redis_are_said(trial: WritesBench) -> None:
    with trial.place.link() as link:
        cache, other = trial.make(url=link.url), trial.make()
        same([cache.get("ada"), other.get("ada")], ["Ada", "Ada"], "reads before")
        link.cut()
        error = trial.start(cache.put, "ada", "new").exception(trial.patience)
        same(trial.origin.rows["ada"], "new", "the row")
        expect(isinstance(error, Exception), "put returned as if it had reached Redis")
        same(cache.get("ada"), "new", "a read by this process while the network is cut")
        link.heal()
        healed = time.monotonic()
        while other.get("ada") != "new":  # the promise is one second
            if time.monotonic() > healed + 2:
                raise Broken("2 s after the network has healed another process reads the old value")
            time.sleep(0.05)


def _begun(trial: WritesBench, held: Commit, put: Callable, *arguments: str) -> Future:
    """Begin a put, and return its future when its write has come to where it is held."""
    writer = trial.start(put, *arguments)
    if not held.entered.wait(trial.patience):
        raise Broken("put writes no row")
    return writer


def _wait(call: Future) -> None:
    """Give a call some time, which may have to wait for what is held."""
    with suppress(TimeoutError):
        call.exception(SOON)
