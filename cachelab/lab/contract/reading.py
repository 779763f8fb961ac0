"""What reads give: hits, absent ids, expiries, and one value for each id."""

import time

from cachelab.lab.contract.promises import promise
from cachelab.lab.contract.trial import Bench, Blocking, Broken, expect, same

HOSTILE = [
    "a b",
    "a\nb",
    "a\r\nFLUSHALL\r\n",
    "*",
    "{a}",
    "a\0b",
    "é",
    "e\u0301",
    "A",
    "a",
    "x" * 512,
]
LARGE = "x" * 2 * 2**20


@promise("a second read is a hit and loads nothing")
def hits_load_nothing(trial: Bench) -> None:
    cache = trial.make()
    same([cache.get("ada"), cache.get("ada")], ["Ada", "Ada"], "two reads")
    same(len(trial.origin.loads), 1, "loads for two reads")


@promise("a hit is one command, for an empty text, '0' and an absent id too")
def hits_are_one_command(trial: Bench) -> None:
    trial.is_for("cache-aside")  # another needs the key's age with it, in the same round trip
    cache = trial.make()
    for id in ("ada", "empty", "zero", "nobody"):
        cache.get(id), cache.get(id)
        before = trial.place.commands(trial.client)
        for _ in range(10):
            cache.get(id)
        sent = trial.place.commands(trial.client) - before
        value = trial.origin.rows.get(id)
        expect(sent <= 10, f"10 hits of {value!r} took {sent} commands")


@promise("an empty text, '0' and 'null' are values like any other")
def empty_values_are_values(trial: Bench) -> None:
    cache = trial.make()
    for id in ("empty", "zero", "null"):
        value = trial.origin.rows[id]
        same([cache.get(id) for _ in range(3)], [value] * 3, f"three reads of {value!r}")
        same(trial.origin.loads.count(id), 1, f"loads for three reads of {value!r}")


@promise("an absent id is None and loaded once in missing_ttl")
def absence_is_remembered(trial: Bench) -> None:
    cache = trial.make()
    same({cache.get("nobody") for _ in range(100)}, {None}, "reads of an absent id")
    same(len(trial.origin.loads), 1, "loads for 100 reads of an absent id")


@promise("an id created behind the cache's back is seen after missing_ttl")
def absence_is_forgotten(trial: Bench) -> None:
    trial.is_for("cache-aside")  # others are built without missing_ttl
    cache = trial.make(missing_ttl=0.2)
    cache.get("nobody")
    trial.origin.rows["nobody"] = "here"
    time.sleep(0.5)
    same(cache.get("nobody"), "here", "a read after missing_ttl")


@promise("every key that the cache writes expires within its ttl")
def keys_expire(trial: Bench) -> None:
    cache = trial.make(ttl=60, missing_ttl=5)
    for id in ("ada", "empty", "nobody"):
        cache.get(id)
    ttls = {key: trial.client.ttl(key) for key in trial.client.scan_iter()}
    expect(bool(ttls), "the cache has written no key")
    expect(
        all(0 < ttl <= 60 for ttl in ttls.values()),
        f"seconds to live: {sorted(ttls.values())} (-1: for ever)",
    )


@promise("what the cache keeps while it loads expires by itself, too")
def leases_expire(trial: Bench) -> None:
    cache = trial.make()
    trial.origin.hold()
    reader = trial.start_read(cache)
    ttls = {key: trial.client.pttl(key) for key in trial.client.scan_iter()}
    expect(-1 not in ttls.values(), f"during a load {list(ttls)} live for ever")
    trial.origin.go.set()
    reader.result(trial.patience)


@promise("values that are written together do not expire together")
def expiries_are_spread(trial: Bench) -> None:
    trial.is_for("cache-aside")  # others spread what comes before the expiry
    cache = trial.make(ttl=600)
    trial.origin.rows |= {f"u{n}": "value" for n in range(50)}
    for n in range(50):
        cache.get(f"u{n}")
    ends = [time.time() + trial.client.pttl(key) / 1000 for key in trial.client.scan_iter()]
    expect(len(ends) >= 50, f"the cache has written {len(ends)} keys for 50 values")
    apart = max(ends) - min(ends)
    expect(apart > 6, f"50 values that live 600 s expire within {apart:.1f} s")


@promise("texts come back exactly, whatever is in them or in the id")
def texts_come_back_exactly(trial: Bench) -> None:
    cache = trial.make()
    trial.origin.rows |= {id: f"value of {id} \u2603" for id in HOSTILE}
    wanted = [trial.origin.rows[id] for id in HOSTILE]
    same([cache.get(id) for id in HOSTILE], wanted, "values on a miss")
    same([cache.get(id) for id in HOSTILE], wanted, "values on a hit")


@promise("ids that differ by blanks are two ids")
def blanks_make_another_id(trial: Bench) -> None:
    cache = trial.make()
    ids = ["ada", " ada", "ada ", "ada\t", "ada\n", " ", "  "]
    trial.origin.rows |= {id: f"value of {id!r}" for id in ids}
    for _ in range(2):
        for id in ids:
            same(cache.get(id), f"value of {id!r}", f"a read of {id!r}")
    cache.invalidate("ada ")
    for id in ids:
        cache.get(id)
    same(sorted(trial.origin.loads), sorted([*ids, "ada "]), "loads, invalidate('ada ') between")


@promise("a value of 2 MB is served, and too large to be cached")
def large_values_are_served(trial: Bench) -> None:
    cache = trial.make()
    trial.origin.rows["large"] = LARGE
    for _ in range(2):
        value = cache.get("large")
        expect(value == LARGE, f"a read of 2 MB gave {str(value)[:20]!r} ...")
    sizes = [trial.client.memory_usage(key) or 0 for key in trial.client.scan_iter()]
    expect(max(sizes, default=0) < 1.5 * 2**20, f"a key of {max(sizes, default=0)} bytes is kept")


@promise("an id that is no text of 1 to 512 bytes is refused")
def bad_ids_are_refused(trial: Bench) -> None:
    cache = trial.make()
    for id in (None, 5, b"x", "", "x" * 513):
        try:
            value = cache.get(id)
        except (TypeError, ValueError):
            continue
        raise Broken(f"get({str(id)[:9]!r}) returned {value!r}")


@promise("invalidate removes one id, literally")
def invalidate_is_literal(trial: Bench) -> None:
    cache = trial.make()
    for id in ("ada", "bob", "*"):
        cache.get(id)
    cache.invalidate("*")
    cache.get("ada"), cache.get("bob")
    same(sorted(trial.origin.loads), ["*", "ada", "bob"], "loads after invalidate('*')")


@promise("after invalidate a read gives the new value")
def invalidate_is_seen(trial: Bench) -> None:
    cache = trial.make()
    cache.get("ada"), cache.get("nobody")
    trial.origin.rows |= {"ada": "new", "nobody": "created"}
    cache.invalidate("ada"), cache.invalidate("nobody")
    same([cache.get("ada"), cache.get("nobody")], ["new", "created"], "reads after invalidate")


@promise("a key that holds nonsense gives the database's value and is mended")
def nonsense_is_mended(trial: Bench) -> None:
    cache = trial.make()
    cache.get("ada")
    keys = _keys(trial)
    for poison in (
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"plain text",
        b"cos\nsystem\n(S'exit 1'\ntR.",
    ):
        for key in keys:
            trial.client.set(key, poison, ex=60)
        same(cache.get("ada"), "Ada", f"a read of a key that holds {poison[:12]!r}")
        loads = len(trial.origin.loads)
        same(
            (cache.get("ada"), len(trial.origin.loads)),
            ("Ada", loads),
            f"the read after {poison[:12]!r}, and its loads",
        )


@promise("a list, hash, set or stream at a key is left alone, and the database's value given")
def other_types_are_left_alone(trial: Bench) -> None:
    cache = trial.make()
    cache.get("ada")
    for command in (
        ("RPUSH", "a job"),
        ("HSET", "field", "text"),
        ("SADD", "member"),
        ("XADD", "*", "field", "text"),
    ):
        for key in _keys(trial):
            trial.client.delete(key)
            trial.client.execute_command(command[0], key, *command[1:])
            theirs = str(trial.client.type(key))
            same(cache.get("ada"), "Ada", f"a read of a key that holds a {theirs}")
            _invalidate(cache, theirs)
            same(trial.client.type(key), theirs, f"what the key holds that held a {theirs}")


def _invalidate(cache: Blocking, theirs: str) -> None:
    try:
        cache.invalidate("ada")
    except Exception as error:
        raise Broken(f"invalidate, where the key holds a {theirs}, raised {error!r}") from error


def _keys(trial: Bench) -> list[str]:
    """Return the keys that the cache has written, now that ada is in it."""
    keys = list(trial.client.scan_iter())
    expect(bool(keys), "the cache has written no key")
    return keys
