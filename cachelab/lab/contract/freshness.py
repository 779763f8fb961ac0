"""No old value after an update: loads that an invalidate overtakes, deletes that do not arrive."""

import time
from contextlib import suppress

from cachelab.lab.contract.promises import promise
from cachelab.lab.contract.trial import Bench, Blocking, Broken, same


@promise("a load overtaken by invalidate leaves nothing behind")
def overtaken_loads_leave_nothing(trial: Bench) -> None:
    _overtaken(trial, trial.make())


@promise("a load overtaken by another process's invalidate leaves nothing behind")
def loads_overtaken_from_elsewhere_leave_nothing(trial: Bench) -> None:
    _overtaken(trial, trial.make(), trial.make())


def _overtaken(trial: Bench, cache: Blocking, other: Blocking | None = None) -> None:
    for id, is_alone in {
        "ada": True,
        "bob": False,
    }.items():  # another reader's store may cover up what is left behind
        trial.origin.rows[id] = "old"
        trial.origin.hold()
        reader = trial.start_read(cache, id)
        trial.origin.rows[id] = "new"
        (other or cache).invalidate(id)
        later = (
            None if is_alone else trial.start(cache.get, id)
        )  # it starts after invalidate has returned
        time.sleep(0 if is_alone else 0.1)
        trial.origin.go.set()
        reader.result(trial.patience)
        if later:
            seen = later.result(trial.patience)
            same(seen, "new", "a read that started after invalidate had returned")
        same([cache.get(id), (other or cache).get(id)], ["new", "new"], "reads at rest")


@promise("a read that begins after invalidate gets no error of a load that began before it")
def errors_do_not_outlive_invalidate(trial: Bench) -> None:
    cache = trial.make()
    trial.origin.rows["ada"] = LookupError("no such row")
    trial.origin.hold()
    reader = trial.start_read(cache)
    trial.origin.rows["ada"] = "new"
    cache.invalidate("ada")
    later = trial.start(cache.get, "ada")
    time.sleep(0.3)
    trial.origin.go.set()
    error = reader.exception(trial.patience)
    same(type(error), LookupError, "what the reader before invalidate got")
    error = later.exception(trial.patience)
    same(error or later.result(), "new", "a read that started after invalidate had returned")


@promise("an invalidate that cannot reach Redis says so, and the old value does not come back")
def lost_deletes_are_said(trial: Bench) -> None:
    with trial.place.link() as link:
        cache = trial.make(url=link.url)
        trial.origin.rows["ada"] = "old"
        cache.get("ada")
        link.cut()
        _invalidate_in_vain(trial, cache)
        same(cache.get("ada"), "new", "a read by this process while the network is cut")
        link.heal()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            cache.get("bob")
            same(cache.get("ada"), "new", "a read by this process after the network has healed")
            time.sleep(0.05)
        same(
            trial.make().get("ada"),
            "new",
            "a read by another process after this one has been in touch with Redis",
        )


@promise("a delete that could not be sent is sent soon after Redis is back, without another call")
def lost_deletes_are_sent(trial: Bench) -> None:
    with trial.place.link() as link:
        cache, other = trial.make(url=link.url), trial.make()
        trial.origin.rows["ada"] = "old"
        cache.get("ada")
        link.cut()
        _invalidate_in_vain(trial, cache)
        link.heal()
        healed = time.monotonic()
        while other.get("ada") != "new":  # the promise is one second
            if time.monotonic() > healed + 3:
                raise Broken("3 s after the network has healed another process reads the old value")
            time.sleep(0.05)


@promise("a load that began before a delete was lost is not stored")
def lost_deletes_keep_loads_from_storing(trial: Bench) -> None:
    with trial.place.link() as link:
        cache, other = trial.make(url=link.url), trial.make()
        trial.origin.rows["ada"] = "old"
        trial.origin.hold()
        reader = trial.start_read(cache)
        link.cut()
        _invalidate_in_vain(trial, cache)
        link.heal()
        trial.origin.go.set()
        reader.result(trial.patience)
        same(other.get("ada"), "new", "a read by another process after the load has ended")


@promise("after a delete that Redis refuses, no read and no load brings the old value back")
def refused_deletes_are_respected(trial: Bench) -> None:
    cache, other = trial.make(), trial.make()
    trial.origin.rows["ada"] = "old"
    trial.origin.rows["bob"] = "old"
    cache.get("ada")
    trial.origin.hold()
    reader = trial.start_read(cache, "bob")
    trial.place.on_each("ACL", "SETUSER", "default", "-getdel", "-del", "-unlink")
    _invalidate_in_vain(trial, cache)
    _invalidate_in_vain(trial, cache, "bob")
    trial.origin.go.set()
    reader.result(trial.patience)
    for _ in range(5):
        same(cache.get("ada"), "new", "a read by this process after the delete was refused")
    same(other.get("bob"), "new", "a read by another process of what this one was loading")


@promise("a process cut off from Redis gives no reader what it read before that reader came")
def followers_take_only_newer_loads(trial: Bench) -> None:
    with trial.place.link() as link:
        cache, other = trial.make(url=link.url), trial.make()
        cache.get("bob")
        link.cut()
        trial.origin.rows["ada"] = "old"
        trial.origin.hold()
        reader = trial.start_read(cache)
        trial.origin.rows["ada"] = "new"
        with suppress(Exception):  # it may be cut off too: to this cache that is all the same
            other.invalidate("ada")
        later = trial.start(cache.get, "ada")
        time.sleep(0.3)
        trial.origin.go.set()
        reader.result(trial.patience)
        seen = later.result(trial.patience)
        same(seen, "new", "a read that started after another process's invalidate had returned")


def _invalidate_in_vain(trial: Bench, cache: Blocking, id: str = "ada") -> None:
    """Change a row, and have the delete fail."""
    trial.origin.rows[id] = "new"
    try:
        cache.invalidate(id)
    except Exception:  # whatever the cache calls it
        return
    raise Broken("invalidate returned as if the delete had reached Redis")
