"""How ids are loaded: once, slowly, within other loads, by holders that die, not all at a time."""

import time
import traceback

from cachelab.lab.contract.child import Child, Say
from cachelab.lab.contract.promises import promise
from cachelab.lab.contract.trial import READERS, Bench, Broken, expect, same

SLOW = 3.3  # seconds: longer than any lease whose dead holder delays nobody for more than three
DELAY = 6.0  # seconds that are taken for more than three: twice that, for machines are noisy


class Whatever(BaseException):
    """What is no Exception, as the time limits of some frameworks are none."""


@promise("readers of a cold key load once")
def readers_load_once(trial: Bench) -> None:
    cache = trial.make()
    trial.warm_pool(cache)
    trial.origin.hold()
    reads = [trial.start(cache.get, "ada") for _ in range(READERS)]
    trial.origin.entered.wait(trial.patience)
    time.sleep(0.3)  # a second load would begin by now; the count below is what judges
    trial.origin.go.set()
    same({read.result(trial.patience) for read in reads}, {"Ada"}, "what the readers got")
    same(trial.origin.loads.count("ada"), 1, f"loads for {READERS} readers")


@promise("readers in two processes load once between them")
def processes_load_once(trial: Bench) -> None:
    first, second = trial.make(), trial.make()
    trial.warm_pool(first), trial.warm_pool(second)
    trial.origin.hold()
    reads = [
        trial.start(cache.get, "ada") for cache in (first, second) for _ in range(READERS // 2)
    ]
    trial.origin.entered.wait(trial.patience)
    time.sleep(0.3)
    trial.origin.go.set()
    same({read.result(trial.patience) for read in reads}, {"Ada"}, "what the readers got")
    same(trial.origin.loads.count("ada"), 1, f"loads for {READERS} readers of two caches")


@promise("without Redis readers of one id make two loads at most in a process")
def readers_load_twice_without_redis(trial: Bench) -> None:
    cache = trial.make()
    trial.place.kill()
    trial.origin.hold()
    reads = [trial.start(cache.get, "ada") for _ in range(READERS)]
    trial.origin.entered.wait(trial.patience)
    time.sleep(0.5)  # until all have come: who came after a load began needs another one
    trial.origin.go.set()
    same({read.result(trial.patience) for read in reads}, {"Ada"}, "what the readers got")
    loads = trial.origin.loads.count("ada")
    expect(loads <= 2, f"loads for {READERS} readers: {loads}")


@promise("readers of a key that is deleted again and again do not load in turn")
def readers_do_not_load_in_turn(trial: Bench) -> None:
    cache = trial.make()
    trial.warm_pool(cache)
    trial.origin.latency = 0.05
    reads = [trial.start(cache.get, "ada") for _ in range(READERS)]
    while not all(read.done() for read in reads):
        trial.client.flushall()  # quicker than the invalidate of many caches: none may be missed
        time.sleep(0.005)
    same({read.result(trial.patience) for read in reads}, {"Ada"}, "what the readers got")
    loads = trial.origin.loads.count("ada")
    expect(loads <= READERS / 5, f"loads for {READERS} readers: {loads}")


@promise("a load that raises reaches its readers and is not cached")
def failures_reach_readers(trial: Bench) -> None:
    cache = trial.make()
    trial.origin.rows["ada"] = LookupError("the database says no")
    for _ in range(2):
        try:
            value = cache.get("ada")
        except LookupError:
            continue
        raise Broken(f"the reader got {value!r}")
    trial.origin.rows["ada"] = "Ada"
    same(cache.get("ada"), "Ada", "a read when the database is well again")


@promise("when a load fails, each of its readers gets an exception of its own")
def failures_are_not_shared(trial: Bench) -> None:
    cache = trial.make()
    trial.origin.rows["ada"] = LookupError("the database says no")
    trial.origin.hold()
    reads = [trial.start(cache.get, "ada") for _ in range(2 * READERS)]
    trial.origin.entered.wait(trial.patience)
    time.sleep(0.3)
    trial.origin.go.set()
    errors = [read.exception(trial.patience) for read in reads]
    same({type(error) for error in errors}, {LookupError}, "what the readers got")
    same(len({id(error) for error in errors}), len(reads), f"exceptions of {len(reads)} readers")
    frames = [len(traceback.extract_tb(error.__traceback__)) for error in errors if error]
    expect(max(frames) < 60, f"their tracebacks have {min(frames)} to {max(frames)} entries")


@promise("whatever a load raises, the next reader anywhere loads at once")
def failures_leave_no_lease(trial: Bench) -> None:
    cache = trial.make()
    kinds = [GeneratorExit(), Whatever(), BaseExceptionGroup("several", [GeneratorExit()])]
    if not trial.is_async:  # these two end an event loop, by Python's own rule
        kinds += [KeyboardInterrupt(), SystemExit()]
    for number, kind in enumerate(kinds):
        id, name = f"u{number}", type(kind).__name__
        trial.origin.rows[id] = kind
        error = trial.start(cache.get, id).exception(trial.patience)
        same(type(error).__name__, name, f"what the reader of a load that raises {name} got")
        trial.origin.rows[id] = "well"
        began = time.monotonic()
        same(trial.make().get(id), "well", f"a read by another process after {name}")
        took = time.monotonic() - began
        expect(took < 2, f"after a load that raised {name} another process waited {took:.1f} s")


@promise("a load that takes longer than three seconds is cached")
def slow_loads_are_cached(trial: Bench) -> None:
    cache = trial.make()
    trial.origin.latency = SLOW
    same(cache.get("ada"), "Ada", "the read that loads")
    trial.origin.latency = 0
    same([cache.get("ada"), trial.make().get("ada")], ["Ada", "Ada"], "reads after it")
    same(len(trial.origin.loads), 1, f"loads for three reads, the first of {SLOW} s")


@promise("a slow load is cached as it ends, though another process has begun it, too")
def first_loads_to_end_are_cached(trial: Bench) -> None:
    first, second, third = trial.make(), trial.make(), trial.make()
    trial.origin.latency = SLOW
    reader = trial.start_read(first)
    trial.start(second.get, "ada")  # it takes over, and is not waited for
    same(reader.result(trial.patience), "Ada", "the read that loads")
    loads = len(trial.origin.loads)
    began = time.monotonic()
    same([first.get("ada"), third.get("ada")], ["Ada", "Ada"], "reads after it")
    took = time.monotonic() - began
    expect(took < SLOW / 3, f"reads after a load had ended took {took:.1f} s")
    same(len(trial.origin.loads), loads, "loads when the first had ended, and after more reads")


@promise("a process that is killed while it loads delays others by three seconds at most")
def dead_holders_delay_for_three_seconds(trial: Bench) -> None:
    def load_for_ever(say: Say) -> None:
        theirs = type(trial)(trial.kind, trial.place, trial.patience, trial.is_async)
        theirs.origin.hold()
        reader = theirs.start_read(theirs.make())
        say("loading")
        reader.result()

    with Child(load_for_ever) as holder:
        same(holder.hear(trial.patience), "loading", "what the holder does")
    _read_within_three_seconds(trial)


@promise("a load that never returns delays other processes by three seconds at most")
def endless_loads_delay_for_three_seconds(trial: Bench) -> None:
    trial.origin.hold(once=True)
    trial.start_read(trial.make())
    _read_within_three_seconds(trial)


def _read_within_three_seconds(trial: Bench) -> None:
    cache = trial.make()
    began = time.monotonic()
    same(cache.get("ada"), "Ada", "a read by another process")
    took = time.monotonic() - began
    expect(took < DELAY, f"another process waited {took:.1f} s")


@promise("a load that reads its own id ends in an error at once")
def own_ids_are_an_error(trial: Bench) -> None:
    for inner in ({"ada": "ada"}, {"bob": "eve", "eve": "bob"}):
        cache = trial.make(inner=inner)
        trial.origin.loads.clear()
        began = time.monotonic()
        error = trial.start(cache.get, next(iter(inner))).exception(trial.patience)
        took, loads = time.monotonic() - began, len(trial.origin.loads)
        expect(isinstance(error, Exception), "the reader got a value")
        expect(loads <= len(inner), f"the error came after {loads} loads: {error!r}")
        expect(took < 2, f"the error came after {took:.1f} s: {error!r}")


@promise("two loads that wait for each other end in an error at once")
def circles_are_an_error(trial: Bench) -> None:
    cache = trial.make(inner={"ada": "bob", "bob": "ada"})
    trial.origin.hold()
    reads = [trial.start_read(cache, "ada"), trial.start(cache.get, "bob")]
    until = time.monotonic() + trial.patience
    while len(trial.origin.loads) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    began = time.monotonic()
    trial.origin.go.set()
    errors = [read.exception(trial.patience) for read in reads]
    took, loads = time.monotonic() - began, len(trial.origin.loads)
    expect(any(errors), "both readers got a value")
    expect(loads <= 4, f"the error came after {loads} loads: {errors[0]!r}")
    expect(took < 2, f"the error came after {took:.1f} s: {errors[0]!r}")


@promise("loads that read other ids do not wait for each other")
def inner_loads_have_room(trial: Bench) -> None:
    ids = [f"outer{n}" for n in range(READERS)]
    cache = trial.make(inner={id: id.replace("outer", "inner") for id in ids})
    trial.origin.rows |= {f"inner{n}": f"value {n}" for n in range(READERS)}
    trial.origin.latency = 0.2  # until all are under way that may be
    reads = [trial.start(cache.get, id) for id in ids]
    seen = [read.result(trial.patience) for read in reads]
    same(seen, [f"value {n}" for n in range(READERS)], "what the readers got")


@promise("a crowd of ids is loaded by 50 loads at a time at most")
def loads_are_bounded(trial: Bench) -> None:
    cache = trial.make()
    trial.origin.latency = 0.2
    reads = [trial.start(cache.get, f"u{n}") for n in range(3 * READERS)]
    same({read.result(trial.patience) for read in reads}, {None}, "what the readers got")
    expect(trial.origin.most <= 50, f"{trial.origin.most} loads ran at once")


@promise("a cancelled first reader does not fail the others (async caches)")
def cancelled_readers_fail_nobody(trial: Bench) -> None:
    trial.is_for("async")
    cache = trial.make()
    trial.origin.hold()
    first = trial.start_task(cache.cache.get("ada"))
    expect(trial.origin.entered.wait(trial.patience), "the read of a cold key loads nothing")
    others = [trial.start(cache.get, "ada") for _ in range(READERS)]
    time.sleep(0.2)
    first.cancel()
    time.sleep(0.05)
    trial.origin.go.set()
    seen = [
        type(error).__name__ if (error := other.exception(trial.patience)) else other.result()
        for other in others
    ]
    same(set(seen), {"Ada"}, "what the other readers got")


@promise("a load goes on when its only reader is cancelled (async caches)")
def cancelled_readers_stop_no_load(trial: Bench) -> None:
    trial.is_for("async")
    cache = trial.make()
    trial.origin.hold()
    first = trial.start_task(cache.cache.get("ada"))
    expect(trial.origin.entered.wait(trial.patience), "the read of a cold key loads nothing")
    first.cancel()
    time.sleep(0.05)
    trial.origin.go.set()
    same(cache.get("ada"), "Ada", "a later read")
    same(len(trial.origin.loads), 1, "loads for both reads")
