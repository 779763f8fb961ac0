"""The catalogue: one field read, changed or dropped without the rest, and never an old one stored.

The common recipe caches a product as one JSON text and reads, changes and writes the whole.
"""

import asyncio
import json
import threading

import pytest
from test_server import eventually

import cachelab as cl
from cachelab.apps.catalogue import AsyncCatalogue, Catalogue


class Database:
    """Products, and a load and a commit that can be held in their middle."""

    def __init__(self):
        self.rows = {f"p-{n}": {"name": f"Pen {n}", "price": n, "kind": "pen"} for n in range(5)}
        self.loads, self.commits = [], []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def load(self, id):
        self.loads.append(id)
        row = dict(self.rows[id]) if id in self.rows else None
        self.entered.set()
        self.go_on.wait()
        return row

    def store(self, id, changes):
        self.rows[id].update(changes)
        self.commits.append((id, changes))


@pytest.fixture
def database():
    return Database()


@pytest.fixture
def make(server, client, database):
    def make(url=server.url, timeout=30, **options):
        options = {"load": database.load, "store": database.store} | options
        return Catalogue(cl.connect(url, timeout=timeout), **options)

    return make


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Give Redis more time than a crowd of readers on a busy machine can take from it."""
    monkeypatch.setattr("cachelab.cache.gate.BUDGET", 20.0)


def held(database, call, *words) -> threading.Thread:
    """Call in a thread until its load has read the row, and is held there."""
    database.entered.clear()
    database.go_on.clear()
    thread = threading.Thread(target=call, args=words, daemon=True)
    thread.start()
    assert database.entered.wait(30)
    return thread


PEN = {"name": "Pen 1", "price": 1, "kind": "pen"}


def test_a_product_is_loaded_once_and_then_read_by_one_command(make, database, client):
    catalogue = make()
    assert catalogue.get("p-1") == PEN
    client.config_resetstat()
    assert catalogue.get("p-1") == PEN and catalogue.get("p-1", ["price"]) == {"price": 1}
    stats = client.info("commandstats")
    asked = {name: told["calls"] for name, told in stats.items() if "config" not in name}
    assert asked == {"cmdstat_hgetall": 1, "cmdstat_hmget": 1}
    assert catalogue.get("p-1", ["no such field"]) == {} and database.loads == ["p-1"]
    assert catalogue.stats.hits == 3 and catalogue.stats.misses == catalogue.stats.loads == 1


def test_what_does_not_exist_is_remembered(make, database):
    catalogue = make()
    assert [catalogue.get("none"), catalogue.get("none", ["price"])] == [None, None]
    assert catalogue.get_many(["none", "p-1"]) == {"none": None, "p-1": PEN}
    assert database.loads == ["none", "p-1"]


def test_many_are_read_in_one_round_trip(make, database):
    catalogue = make()
    rows = {f"p-{n}": database.rows[f"p-{n}"] for n in range(5)}
    assert catalogue.get_many(rows) == rows == catalogue.get_many(rows)
    assert sorted(database.loads) == sorted(rows) and catalogue.stats.hits == 5


def test_a_crowd_loads_once(make, database, together):
    catalogue = make()
    assert together(50, catalogue.get, "p-1") == [PEN] * 50
    assert database.loads == ["p-1"]


def test_an_update_changes_its_field_and_the_rest_stays_cached(make, database, client):
    catalogue = make()
    catalogue.get("p-1")
    catalogue.update("p-1", {"price": 7})
    assert database.commits == [("p-1", {"price": 7})]
    assert catalogue.get("p-1") == PEN | {"price": 7} == database.rows["p-1"]
    catalogue.update("p-2", {"price": 8})  # of which nothing is cached
    assert catalogue.get("p-2", ["price"]) == {"price": 8} and database.loads == ["p-1"]
    assert catalogue.get("p-2") == database.rows["p-2"] and database.loads == ["p-1", "p-2"]
    assert all(0 < client.pttl(key) <= 300_000 for key in client.keys())


def test_updates_of_two_fields_at_once_lose_neither_and_the_recipe_one(
    make, database, client, together
):
    both = threading.Barrier(2)

    def store(id, changes):
        both.wait()
        database.store(id, changes)

    catalogue = make(store=store)
    catalogue.get("p-1")
    changes = [{"price": 7}, {"name": "Quill"}]
    left = iter(changes)
    together(2, lambda: catalogue.update("p-1", next(left)))
    assert catalogue.get("p-1") == database.rows["p-1"] == PEN | {"price": 7, "name": "Quill"}
    client.set("product:p-1", json.dumps(PEN))
    left = iter(changes)

    def read_and_write_all():
        product = json.loads(client.get("product:p-1"))
        both.wait()
        client.set("product:p-1", json.dumps(product | next(left)))

    together(2, read_and_write_all)
    assert json.loads(client.get("product:p-1")) in [PEN | one for one in changes]


@pytest.mark.parametrize("last", ["first", "second"])
def test_of_two_updates_of_one_field_the_cache_ends_with_what_the_database_has(
    make, database, client, last
):
    """The second begins, commits and ends amid the first, before or after the first's commit."""
    catalogue = make()
    catalogue.get("p-1")

    def store(id, changes):
        if last == "first":
            make().update("p-1", {"price": 8})
        database.store(id, changes)
        if last == "second":
            make().update("p-1", {"price": 8})

    make(store=store).update("p-1", {"price": 7})
    assert database.rows["p-1"]["price"] == (7 if last == "first" else 8)
    assert catalogue.get("p-1") == database.rows["p-1"]
    for order in ([8, 7], [7, 8]):  # the control: each writes the cache after its commit
        for price in order:
            database.store("p-1", {"price": price})
        client.set("naive", order[1])
        client.set("naive", order[0])  # whose process was slower
        assert int(client.get("naive")) != database.rows["p-1"]["price"]


@pytest.mark.parametrize(
    "how", ["update", "invalidate", "a field", "a tag", "elsewhere", "a field elsewhere"]
)
def test_a_load_that_was_overtaken_is_not_stored(make, database, how):
    catalogue = make(tags=lambda product: [product["kind"]])
    catalogue.get("p-2")
    reader = held(database, catalogue.get, "p-1")
    database.rows["p-1"]["price"] = 7
    {
        "update": lambda: catalogue.update("p-1", {"price": 7}),
        "invalidate": lambda: catalogue.invalidate("p-1"),
        "a field": lambda: catalogue.invalidate("p-1", ["price"]),
        "a tag": lambda: catalogue.invalidate_tag("pen"),
        "elsewhere": lambda: make().invalidate("p-1"),
        "a field elsewhere": lambda: make().invalidate("p-1", ["price"]),
    }[how]()
    database.go_on.set()
    reader.join()
    assert catalogue.get("p-1") == PEN | {"price": 7} and catalogue.stats.refused == 1


def test_what_is_loaded_and_then_stored_is_old(database, client):
    """The control: nothing tells the loader that the row has changed meanwhile."""
    loaded = database.load("p-1")
    database.store("p-1", {"price": 7})
    client.delete("naive")
    client.set("naive", json.dumps(loaded))
    assert json.loads(client.get("naive"))["price"] == 1


def test_a_read_that_begins_after_an_update_does_not_take_a_load_that_began_before(make, database):
    catalogue = make()
    first = held(database, catalogue.get, "p-1")
    make().update("p-1", {"price": 7})  # as another process
    seen = []
    second = threading.Thread(target=lambda: seen.append(catalogue.get("p-1")), daemon=True)
    second.start()
    assert eventually(lambda: catalogue.stats.waits == 1)
    database.go_on.set()
    first.join(), second.join()
    assert seen == [PEN | {"price": 7}]


def test_while_an_update_is_under_way_reads_ask_the_database_and_store_nothing(make, database):
    catalogue, seen = make(), []

    def store(id, changes):
        seen.append(catalogue.get("p-1"))  # before the commit
        database.store(id, changes)
        seen.append(catalogue.get("p-1", ["price"]))

    make(store=store).update("p-1", {"price": 7})
    assert seen == [PEN, {"price": 7}] and catalogue.get("p-1") == PEN | {"price": 7}
    assert database.loads == ["p-1"] * 3


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("has_committed", [True, False])
def test_an_update_whose_process_died_leaves_nothing_old(
    make, database, monkeypatch, has_committed
):
    catalogue = make()
    catalogue.get("p-1")

    def store(id, changes):
        if has_committed:
            database.store(id, changes)
        raise Crash

    monkeypatch.setattr("cachelab.apps.catalogue.UPDATE", 10**9)
    with pytest.raises(Crash):
        make(store=store).update("p-1", {"price": 7})
    assert catalogue.get("p-1") == database.rows["p-1"]
    assert catalogue.get("p-1") == database.rows["p-1"] and len(database.loads) == 3
    monkeypatch.setattr("cachelab.apps.catalogue.UPDATE", 0)  # its lease has become old
    catalogue.get("p-1"), catalogue.get("p-1")
    assert len(database.loads) == 4


def test_an_update_that_the_database_refuses_reaches_the_caller(make, database):
    def store(id, changes):
        raise OSError("the database is read-only")

    catalogue = make(store=store)
    catalogue.get("p-1")
    with pytest.raises(OSError, match="read-only"):
        catalogue.update("p-1", {"price": 7})
    assert catalogue.get("p-1") == PEN


def test_a_field_is_dropped_alone(make, database):
    catalogue = make()
    catalogue.get("p-1")
    database.rows["p-1"] |= {"price": 7, "name": "Quill"}  # of which the cache is told one half
    catalogue.invalidate("p-1", ["price"])
    assert catalogue.get("p-1", ["name"]) == {"name": "Pen 1"} and len(database.loads) == 1
    assert catalogue.get("p-1") == database.rows["p-1"] and len(database.loads) == 2


# Tags


def test_a_tag_drops_its_products_and_no_others(make, database, client):
    database.rows["p-4"]["kind"] = "ink"
    catalogue = make(tags=lambda product: [product["kind"], "all"])
    catalogue.get_many(database.rows)
    database.loads.clear()
    assert catalogue.invalidate_tag("pen") == 4 and catalogue.invalidate_tag("none") == 0
    catalogue.get_many(database.rows)
    assert sorted(database.loads) == ["p-0", "p-1", "p-2", "p-3"]
    assert catalogue.invalidate_tag("all") == 5
    assert all(client.pttl(key) > 0 for key in client.keys())


def test_readers_beside_changes_by_tag_keep_nothing_old(make, database, together):
    """Each price is changed, and dropped by its tag, while others read and load it."""
    tags = {"tags": lambda product: [product["kind"]]}
    catalogues = [make(**tags) for _ in range(4)]  # of four processes
    turn, began = threading.Lock(), []

    def one():
        with turn:
            began.append(None)
            mine = len(began)
        catalogue = catalogues[mine % 4]
        for step in range(5):
            if mine % 4 == 0:
                with turn:
                    for row in database.rows.values():
                        row["price"] += 1
                catalogue.invalidate_tag("pen")
                before = database.rows["p-0"]["price"]
            else:
                before = database.rows[f"p-{step}"]["price"]
                assert catalogue.get(f"p-{step}")["price"] <= database.rows[f"p-{step}"]["price"]
        return before

    assert all(isinstance(one, int) for one in together(24, one))
    assert all(c.get_many(database.rows) == database.rows for c in catalogues)


# Failures and bad input


def test_without_redis_products_come_from_the_database_and_drops_are_kept(
    make, database, monkeypatch
):
    monkeypatch.setattr("cachelab.cache.gate.BUDGET", 0.45)
    with cl.Server() as server:
        catalogue = make(server.url, timeout=0.2, tags=lambda product: [product["kind"]])
        catalogue.get("p-1")
        server.freeze()
        try:
            assert catalogue.get("p-1") == PEN and catalogue.get_many(["p-1"]) == {"p-1": PEN}
            with pytest.raises(cl.InvalidationPending, match="'p-1'"):
                catalogue.update("p-1", {"price": 7})
            with pytest.raises(cl.InvalidationPending):
                catalogue.invalidate("p-1")
            with pytest.raises(cl.RedisUnavailable, match="repeat it"):
                catalogue.invalidate_tag("pen")
            assert catalogue.get("p-1")["price"] == 7
        finally:
            server.thaw()
        other = make(server.url)
        assert eventually(lambda: other.get("p-1")["price"] == 7)
        assert catalogue.get("p-1")["price"] == 7


def test_a_load_is_not_stored_when_a_drop_that_failed_has_overtaken_it(make, database, monkeypatch):
    monkeypatch.setattr("cachelab.cache.gate.BUDGET", 0.45)
    with cl.Server() as server:
        catalogue = make(server.url, timeout=0.2)
        monkeypatch.setattr(catalogue._core._waiting, "resend", lambda *_: None)
        reader = held(database, catalogue.get, "p-1")
        database.rows["p-1"]["price"] = 7
        server.freeze()
        with pytest.raises(cl.InvalidationPending):
            catalogue.invalidate("p-1")
        monkeypatch.setattr("cachelab.cache.gate.BUDGET", 20.0)
        server.thaw()
        database.go_on.set()
        reader.join()
        client = cl.connect(server.url, timeout=30)
        assert client.hget("product:id:p-1", ":price") is None
        assert catalogue.get("p-1")["price"] == 7 == make(server.url).get("p-1")["price"]


def test_what_else_lies_at_a_key_is_left_alone_and_what_is_broken_is_replaced(
    make, database, client
):
    catalogue = make()
    client.rpush("product:id:p-1", "somebody's")
    assert catalogue.get("p-1") == PEN and catalogue.get_many(["p-1"]) == {"p-1": PEN}
    catalogue.invalidate("p-1")
    assert client.lrange("product:id:p-1", 0, -1) == ["somebody's"]
    for text in ("{", b"\xff", "[" * 100_000):
        catalogue.get("p-2")
        client.hset("product:id:p-2", ":price", text)
        assert catalogue.get("p-2") == catalogue.get("p-2", ["price", "name", "kind"])
        assert client.hget("product:id:p-2", ":price") == "2"


def test_an_error_of_a_load_reaches_its_readers_and_is_not_cached(make, database, together):
    def load(id):
        raise OSError("the database is away")

    catalogue = make(load=load)
    assert {str(error) for error in together(10, catalogue.get, "p-1")} == {"the database is away"}
    with pytest.raises(OSError, match="away"):
        catalogue.get_many(["p-1", "p-2"])
    assert make().get("p-1") == PEN


def test_the_asyncio_twin_does_the_same(aclient, run_async, database):
    async def load(id):
        await asyncio.sleep(0)
        return database.load(id)

    async def store(id, changes):
        database.store(id, changes)

    async def main():
        catalogue = AsyncCatalogue(aclient, load, store, tags=lambda product: [product["kind"]])
        crowd = await asyncio.gather(*(catalogue.get("p-1") for _ in range(50)))
        await catalogue.update("p-1", {"price": 7})
        many = await catalogue.get_many(["p-1", "none"])
        dropped = await catalogue.invalidate_tag("pen")
        await catalogue.invalidate("p-1", ["price"])
        return crowd, many, dropped, await catalogue.get("p-1", ["price"]), catalogue.stats.loads

    many = {"p-1": PEN | {"price": 7}, "none": None}
    assert run_async(main()) == ([PEN] * 50, many, 1, {"price": 7}, 3)


ODD = {"": [], "{x}": {"}": None}, "a\r\nFLUSHALL": "", "é": "\ud800", "whole": "0", "lease": 2**60}


def test_odd_names_and_values_come_back_as_they_were(make, database):
    ids = ["}", "{x}", "tag:pen", "generation", "a\r\nFLUSHALL", "*", "é", "e\u0301", "\0"]
    named = {name: value for name, value in ODD.items() if name}
    database.rows = {id: named | {"id": id} for id in ids}
    catalogue = make(tags=lambda product: [product["id"]])
    for _ in range(2):
        assert [catalogue.get(id) for id in ids] == list(database.rows.values())
    catalogue.update("}", {"whole": 1})
    assert catalogue.get("}", ["whole", "lease"]) == {"whole": 1, "lease": 2**60}
    assert catalogue.invalidate_tag("*") == 1 and len(database.loads) == len(ids)


BAD = {
    "id": (lambda c: c.get(""), ValueError),
    "number": (lambda c: c.get(5), TypeError),
    "fields": (lambda c: c.get("p-1", "price"), TypeError),
    "field": (lambda c: c.get("p-1", [5]), TypeError),
    "ids": (lambda c: c.get_many("p-1"), TypeError),
    "one id": (lambda c: c.get_many(["p-1", None]), TypeError),
    "changes": (lambda c: c.update("p-1", ["price"]), TypeError),
    "no changes": (lambda c: c.update("p-1", {}), ValueError),
    "value": (lambda c: c.update("p-1", {"price": {1}}), TypeError),
    "name": (lambda c: c.update("p-1", {5: 1}), TypeError),
    "dropped": (lambda c: c.invalidate("p-1", "price"), TypeError),
    "tag": (lambda c: c.invalidate_tag(""), ValueError),
}


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_nothing_is_written(make, database, client, call, error):
    with pytest.raises(error):
        call(make())
    assert client.dbsize() == 0 and database.loads == database.commits == []


def test_a_bad_setting_or_load_is_refused(make, aclient):
    for setting in ({"ttl": 0}, {"jitter": 2}, {"missing_ttl": None}, {"max_loads": 0}):
        with pytest.raises((ValueError, TypeError), match=next(iter(setting))):
            make(**setting)
    for setting in ({"load": None}, {"store": 5}, {"tags": "kind"}):
        with pytest.raises(TypeError, match=f"{next(iter(setting))} must be a function"):
            make(**setting)
    with pytest.raises(TypeError, match="connect"):
        Catalogue(aclient, dict)
    with pytest.raises(TypeError, match="store must be a function for update"):
        make(store=None).update("p-1", {"price": 1})
    for row, words in (([1], "must be a mapping"), ({5: 1}, "5"), ({"a": {1}}, "p-1.a")):
        with pytest.raises(TypeError, match=words):
            make(load=lambda id, row=row: row).get("p-1")
