"""What a cache-aside must hold, as a suite that judges any cache: the package's own, or one written in a notebook cell.

    contract.check(MyCache)        a table: promise, held, seen
    pytest --cache module:MyCache  the same from a shell

A cache is built as ``MyCache(url, load, ttl, missing_ttl)``: the server's URL, a function of an id that returns a str or
None, and two lifetimes in seconds. It has ``get(id)`` and ``invalidate(id)``, both plain or both async; if they are async,
``load`` is, too. Every promise is tried on a server of its own, which the suite starts, fills, freezes and kills.
"""

import asyncio
import time
from collections.abc import Callable

import pandas as pd

from cachelab.lab.link import Link
from cachelab.lab.trial import PATIENCE, READERS, Bench, Blocking, Broken, bench, expect, same

PROMISES: dict[str, Callable] = {}


def check(cache: type, only: str = "") -> pd.DataFrame:
    """Try every promise (whose sentence contains ``only``) and return DataFrame(promise, held, seen).

    seen: what was seen instead, "" for a promise held. Takes about half a minute.
    """
    rows = []
    for sentence in PROMISES:
        if only in sentence:
            seen = verdict(cache, sentence)
            rows.append({"promise": sentence, "held": seen is None, "seen": seen or ""})
    return pd.DataFrame(rows, columns=["promise", "held", "seen"])


def verdict(cache: type, sentence: str) -> str | None:
    """Try one promise; return None if it is held, else what was seen instead."""
    try:
        with bench(cache) as trial:
            PROMISES[sentence](trial)
    except Broken as broken:
        return str(broken)
    except TimeoutError:
        return f"a call did not come back within {PATIENCE} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return None


def promise(sentence: str) -> Callable:
    def note(trial: Callable) -> Callable:
        PROMISES[sentence] = trial
        return trial

    return note


@promise("a second read is a hit and loads nothing")
def _(trial: Bench):
    cache = trial.make()
    same([cache.get("ada"), cache.get("ada")], ["Ada", "Ada"], "two reads")
    same(len(trial.origin.loads), 1, "loads for two reads")


@promise("an empty text, '0' and 'null' are values like any other")
def _(trial: Bench):
    cache = trial.make()
    for id in ("empty", "zero", "null"):
        same(
            [cache.get(id) for _ in range(3)], [trial.origin.rows[id]] * 3, f"three reads of {trial.origin.rows[id]!r}"
        )
        same(trial.origin.loads.count(id), 1, f"loads for three reads of {trial.origin.rows[id]!r}")


@promise("an absent id is None and loaded once in missing_ttl")
def _(trial: Bench):
    cache = trial.make()
    same({cache.get("nobody") for _ in range(100)}, {None}, "reads of an absent id")
    same(len(trial.origin.loads), 1, "loads for 100 reads of an absent id")


@promise("an id created behind the cache's back is seen after missing_ttl")
def _(trial: Bench):
    cache = trial.make(missing_ttl=0.2)
    cache.get("nobody")
    trial.origin.rows["nobody"] = "here"
    time.sleep(0.5)
    same(cache.get("nobody"), "here", "a read after missing_ttl")


@promise("every key that the cache writes expires within its ttl")
def _(trial: Bench):
    cache = trial.make(ttl=60, missing_ttl=5)
    for id in ("ada", "empty", "nobody"):
        cache.get(id)
    ttls = {key: trial.client.ttl(key) for key in trial.client.scan_iter()}
    expect(bool(ttls), "the cache has written no key")
    expect(all(0 < ttl <= 60 for ttl in ttls.values()), f"seconds to live: {sorted(ttls.values())} (-1: for ever)")


@promise("texts come back exactly, whatever is in them or in the id")
def _(trial: Bench):
    cache = trial.make()
    ids = ["a b", "a\nb", "a\r\nFLUSHALL\r\n", "*", "{a}", "a\0b", "é", "e\u0301", "A", "a", "x" * 512]
    trial.origin.rows |= {id: f"value of {id} \u2603" for id in ids}
    same([cache.get(id) for id in ids], [trial.origin.rows[id] for id in ids], "values on a miss")
    same([cache.get(id) for id in ids], [trial.origin.rows[id] for id in ids], "values on a hit")


@promise("invalidate removes one id, literally")
def _(trial: Bench):
    cache = trial.make()
    for id in ("ada", "bob", "*"):
        cache.get(id)
    cache.invalidate("*")
    cache.get("ada"), cache.get("bob")
    same(sorted(trial.origin.loads), ["*", "ada", "bob"], "loads after invalidate('*')")


@promise("an id that is no text of 1 to 512 bytes is refused")
def _(trial: Bench):
    cache = trial.make()
    for id in (None, 5, b"x", "", "x" * 513):
        try:
            value = cache.get(id)
        except (TypeError, ValueError):
            continue
        raise Broken(f"get({str(id)[:9]!r}) returned {value!r}")


@promise("after invalidate a read gives the new value")
def _(trial: Bench):
    cache = trial.make()
    cache.get("ada"), cache.get("nobody")
    trial.origin.rows |= {"ada": "new", "nobody": "created"}
    cache.invalidate("ada"), cache.invalidate("nobody")
    same([cache.get("ada"), cache.get("nobody")], ["new", "created"], "reads after invalidate")


@promise("readers of a cold key load once")
def _(trial: Bench):
    cache = trial.make()
    trial.warm_pool(cache)
    trial.origin.hold()
    reads = [trial.start(cache.get, "ada") for _ in range(READERS)]
    trial.origin.entered.wait(PATIENCE)
    time.sleep(0.3)  # a second load would begin by now; the count below is what judges
    trial.origin.go.set()
    same({read.result(PATIENCE) for read in reads}, {"Ada"}, "what the readers got")
    same(trial.origin.loads.count("ada"), 1, f"loads for {READERS} readers")


@promise("readers in two processes load once between them")
def _(trial: Bench):
    first, second = trial.make(), trial.make()
    trial.warm_pool(first), trial.warm_pool(second)
    trial.origin.hold()
    reads = [trial.start(cache.get, "ada") for cache in (first, second) for _ in range(READERS // 2)]
    trial.origin.entered.wait(PATIENCE)
    time.sleep(0.3)
    trial.origin.go.set()
    same({read.result(PATIENCE) for read in reads}, {"Ada"}, "what the readers got")
    same(trial.origin.loads.count("ada"), 1, f"loads for {READERS} readers of two caches")


@promise("a load that raises reaches its readers and is not cached")
def _(trial: Bench):
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


@promise("a load overtaken by invalidate leaves nothing behind")
def _(trial: Bench):
    _overtaken(trial, trial.make())


@promise("a load overtaken by another process's invalidate leaves nothing behind")
def _(trial: Bench):
    _overtaken(trial, trial.make(), trial.make())


def _overtaken(trial: Bench, cache: Blocking, other: Blocking | None = None) -> None:
    for id, is_alone in {"ada": True, "bob": False}.items():  # another reader's store may cover up what is left behind
        trial.origin.rows[id] = "old"
        trial.origin.hold()
        reader = trial.start(cache.get, id)
        expect(trial.origin.entered.wait(PATIENCE), "the read of a cold key loads nothing")
        trial.origin.rows[id] = "new"
        (other or cache).invalidate(id)
        later = None if is_alone else trial.start(cache.get, id)  # it starts after invalidate has returned
        time.sleep(0 if is_alone else 0.1)
        trial.origin.go.set()
        reader.result(PATIENCE)
        if later:
            same(later.result(PATIENCE), "new", "a read that started after invalidate had returned")
        same([cache.get(id), (other or cache).get(id)], ["new", "new"], "reads at rest")


@promise("a key that holds nonsense gives the database's value and is mended")
def _(trial: Bench):
    cache = trial.make()
    cache.get("ada")
    keys = [key for key in trial.client.scan_iter() if trial.client.type(key) == "string"]
    expect(bool(keys), "the cache has written no key")
    for poison in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"plain text", b"cos\nsystem\n(S'exit 1'\ntR."):
        for key in keys:
            trial.client.set(key, poison, ex=60)
        same(cache.get("ada"), "Ada", f"a read of a key that holds {poison[:12]!r}")
        loads = len(trial.origin.loads)
        same(
            (cache.get("ada"), len(trial.origin.loads)),
            ("Ada", loads),
            f"the read after {poison[:12]!r}, and its loads",
        )


@promise("with Redis gone every read gives the database's value")
def _(trial: Bench):
    cache = trial.make()
    cache.get("ada")
    trial.server.kill()
    same([cache.get("ada"), cache.get("bob"), cache.get("nobody")], ["Ada", "Bob", None], "reads without Redis")


@promise("a cache can be built while Redis is away")
def _(trial: Bench):
    trial.server.kill()
    same(trial.make().get("ada"), "Ada", "a read from a cache built without Redis")


@promise("a frozen Redis adds half a second at most, and soon nothing")
def _(trial: Bench):
    cache = trial.make()
    cache.get("ada")
    trial.server.freeze()
    for number in range(1, 13):
        started = time.monotonic()
        same(cache.get("ada"), "Ada", "a read from a frozen Redis")
        took = time.monotonic() - started
        expect(
            took < 1.0, f"read {number} of a frozen Redis took {took:.1f} s"
        )  # twice the promise: machines are noisy
    expect(took < 0.2, f"the twelfth read still took {took:.2f} s: the cache goes on asking a frozen server")


@promise("the cache is used again when Redis is back")
def _(trial: Bench):
    cache = trial.make()
    trial.server.kill()
    for _ in range(12):
        cache.get("ada")
    trial.server.restart()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        before = len(trial.origin.loads)
        cache.get("ada"), cache.get("ada")
        if len(trial.origin.loads) == before:
            return
        time.sleep(0.05)
    raise Broken("5 s after Redis came back every read still loads")


@promise("a full server serves every read, and cached keys still hit")
def _(trial: Bench):
    cache = trial.make()
    cache.get("ada")
    trial.client.config_set("maxmemory", "1mb")
    same([cache.get(f"u{n}") for n in range(50)], [None] * 50, "reads from a full server")
    before = trial.origin.loads.count("ada")
    same((cache.get("ada"), trial.origin.loads.count("ada")), ("Ada", before), "the cached read, and its loads")


@promise("an invalidate that cannot reach Redis says so, and the old value does not come back")
def _(trial: Bench):
    with Link(trial.server.url) as link:
        cache = trial.make(url=link.url)
        trial.origin.rows["ada"] = "old"
        cache.get("ada")
        link.cut()
        trial.origin.rows["ada"] = "new"
        try:
            cache.invalidate("ada")
        except Exception:  # whatever the cache calls it
            same(cache.get("ada"), "new", "a read by this process while the network is cut")
        else:
            raise Broken("invalidate returned as if the delete had reached Redis")
        link.heal()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            cache.get("bob")
            same(cache.get("ada"), "new", "a read by this process after the network has healed")
            time.sleep(0.05)
        same(trial.make().get("ada"), "new", "a read by another process after this one has been in touch with Redis")


@promise("a cancelled first reader does not fail the others (async caches)")
def _(trial: Bench):
    if not trial.is_async:
        return
    cache = trial.make()
    trial.origin.hold()
    first = asyncio.run_coroutine_threadsafe(cache.cache.get("ada"), trial.loop)
    expect(trial.origin.entered.wait(PATIENCE), "the read of a cold key loads nothing")
    others = [trial.start(cache.get, "ada") for _ in range(READERS)]
    time.sleep(0.2)
    first.cancel()
    time.sleep(0.05)
    trial.origin.go.set()
    seen = [type(error).__name__ if (error := other.exception(PATIENCE)) else other.result() for other in others]
    same(set(seen), {"Ada"}, "what the other readers got")
