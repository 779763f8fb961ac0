"""Redis gone, frozen, full, demoted or refusing: the database's value, and Redis when it can."""

import logging
import time

from cachelab.lab.contract.promises import promise
from cachelab.lab.contract.trial import Bench, Blocking, Broken, expect, same


@promise("with Redis gone every read gives the database's value")
def reads_go_on_without_redis(trial: Bench) -> None:
    cache = trial.make()
    cache.get("ada")
    trial.place.kill()
    same(
        [cache.get("ada"), cache.get("bob"), cache.get("nobody")],
        ["Ada", "Bob", None],
        "reads without Redis",
    )


@promise("a cache can be built while Redis is away")
def building_needs_no_redis(trial: Bench) -> None:
    trial.place.kill()
    same(trial.make().get("ada"), "Ada", "a read from a cache built without Redis")


@promise("a frozen Redis adds half a second at most, and soon nothing")
def frozen_servers_are_left_alone(trial: Bench) -> None:
    cache = trial.make()
    cache.get("ada")
    trial.place.freeze()
    slow = []
    for number in range(1, 13):
        started = time.monotonic()
        same(cache.get("ada"), "Ada", "a read from a frozen Redis")
        took = time.monotonic() - started
        if took > 1.0:  # twice the promise, and once more or less: a machine may stand still
            slow.append(f"read {number} of a frozen Redis took {took:.1f} s")
        expect(len(slow) < 2, ", ".join(slow))
    expect(
        took < 0.2,
        f"the twelfth read still took {took:.2f} s: the cache goes on asking a frozen server",
    )


@promise("the cache is used again when Redis is back")
def redis_is_used_again(trial: Bench) -> None:
    cache = trial.make()
    trial.place.kill()
    for _ in range(12):
        cache.get("ada")
    trial.place.restart()
    _hits_within_five_seconds(trial, cache, "after Redis came back")


@promise("a server that has become a replica is left for the new primary at its address")
def demoted_servers_are_left(trial: Bench) -> None:
    with trial.place.failing_over() as (url, fail_over, keys):
        cache = trial.make(url=url)
        cache.get("ada")
        fail_over()
        _hits_within_five_seconds(trial, cache, "after the fail-over")
        expect(keys() > 0, "nothing is cached on the new primary")


def _hits_within_five_seconds(trial: Bench, cache: Blocking, when: str) -> None:
    deadline = time.monotonic() + 5
    number = 0
    while time.monotonic() < deadline:
        number += 1
        id = f"u{number}"  # a new one: the miss is what writes
        cache.get(id), cache.get(id)
        if trial.origin.loads.count(id) == 1:
            return
        time.sleep(0.05)
    raise Broken(f"5 s {when} every read still loads")


@promise("a full server serves every read, and cached keys still hit")
def full_servers_serve(trial: Bench) -> None:
    cache = trial.make()
    cache.get("ada")
    trial.place.on_each("CONFIG", "SET", "maxmemory", "1mb")
    same([cache.get(f"u{n}") for n in range(50)], [None] * 50, "reads from a full server")
    before = trial.origin.loads.count("ada")
    same(
        (cache.get("ada"), trial.origin.loads.count("ada")),
        ("Ada", before),
        "the cached read, and its loads",
    )


@promise("a wrong password or database is said in the log, once, with the way out")
def mistakes_are_said_once(trial: Bench) -> None:
    for word, url in trial.place.mistakes().items():
        said = _said(trial, url)
        expect(
            any(word in text.lower() for text in said),
            f"of a wrong {word} the log says {said or 'nothing'}",
        )
        expect(len(said) == 1, f"of a wrong {word} the log says {len(said)} times {said[:2]}")


def _said(trial: Bench, url: str) -> list[str]:
    """Return what is logged by 50 reads, as errors and warnings."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logging.disable(logging.NOTSET)
    logging.getLogger().addHandler(handler)
    cache = trial.make(url=url)
    same({cache.get("ada") for _ in range(50)}, {"Ada"}, f"reads from {url.rpartition('/')[2]}")
    logging.getLogger().removeHandler(handler)
    return [record.getMessage() for record in records]
