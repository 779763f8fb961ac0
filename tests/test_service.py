"""Calls to another service: one for all who ask, the old answer while it is down, and no herd.

The common recipe calls it whenever the cached answer has expired.
"""

import multiprocessing
import threading

import pytest
from test_server import eventually

import cachelab as cl
from cachelab import ServiceDown
from cachelab.apps.service import AsyncService, Service


class Other:
    """The other side: it answers with the number of its call."""

    def __init__(self):
        self.calls = 0
        self.error = None
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def call(self, id):
        self.calls += 1
        number = self.calls
        self.entered.set()
        self.go_on.wait(60)
        if self.error:
            raise self.error
        return None if id == "nobody" else f"{id} {number}"


@pytest.fixture
def other():
    return Other()


@pytest.fixture
def make(server, client, other, monkeypatch):
    monkeypatch.setattr("cachelab.cache.gate.BUDGET", 20.0)  # for crowds on a busy machine

    def make(url=server.url, **options):
        options = {"ttl": 60, "grace": 3600, "lease": 0.05, "pause": 60} | options
        return Service(cl.connect(url, timeout=10), **{"call": other.call} | options)

    return make


def test_fifty_readers_at_once_make_one_call_and_without_it_fifty(make, other, together):
    service = make()
    other.go_on.clear()

    def work():
        eventually(lambda: service.stats.misses == 50, seconds=30)
        other.go_on.set()

    opener = threading.Thread(target=work)
    opener.start()
    assert together(50, service.get, "ada") == ["ada 1"] * 50 and other.calls == 1
    opener.join()
    together(50, other.call, "ada")
    assert other.calls == 51


def read(url, readers):
    """Ask from ten threads of this process, of which one call at most gets through."""
    client = cl.connect(url, timeout=30)

    def call(id):
        client.incr("calls")
        client.blpop("go", timeout=20)
        return id

    service = Service(client, call, ttl=60, grace=60, lease=30)

    def one():
        client.incr("readers")
        assert service.get("ada") == "ada"
        client.incr("answered")

    threads = [threading.Thread(target=one) for _ in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_processes_make_one_call(server, client):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=read, args=(server.url, 10)) for _ in range(2)]
    for process in processes:
        process.start()
    assert eventually(lambda: client.get("readers") == "20", seconds=60)
    client.rpush("go", *range(20))  # enough for all of them
    for process in processes:
        process.join()
    assert client.get("answered") == "20" and client.get("calls") == "1"


def test_readers_have_the_old_answer_while_it_is_down_and_by_the_recipe_an_error(
    make, other, client
):
    service = make(ttl=0.02)
    recipe = cl.CacheAside(client, other.call, ttl=0.02, prefix="recipe:")
    assert service.get("ada") == "ada 1" and recipe.get("ada") == "ada 2"
    other.error = ConnectionRefusedError("it is down")
    assert eventually(lambda: service.get("ada") == "ada 1" and service.stats.failed >= 2)
    assert service.stats.stale > 0

    def fails():
        try:
            return not recipe.get("ada")
        except ConnectionRefusedError:
            return True

    assert eventually(fails)
    other.error = None
    assert eventually(lambda: service.get("ada") != "ada 1")


def test_nobody_waits_for_a_refresh(make, other, together):
    service = make(ttl=0.02)
    service.get("ada")
    other.entered.clear(), other.go_on.clear()
    assert eventually(lambda: service.get("ada") == "ada 1" and other.entered.is_set())
    assert together(20, service.get, "ada") == ["ada 1"] * 20  # and the call has not ended
    assert other.calls >= 2 and not other.go_on.is_set()
    other.go_on.set()
    assert eventually(lambda: service.get("ada") != "ada 1")


def test_an_answer_that_is_too_old_is_given_to_nobody(make, other):
    service = make(ttl=0.02, grace=0.05)
    service.get("ada")
    other.error = OSError("it is down")

    def fails():
        try:
            return not service.get("ada")
        except (OSError, ServiceDown):
            return True

    assert eventually(fails)


def test_who_is_down_is_left_alone_and_without_that_called_each_time(make, other):
    other.error = TimeoutError("no answer")
    service, control = make(failures=3), make(failures=1000, prefix="control:")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            service.get("ada")
    assert service.is_left_alone
    for id in ("ada", "bob", "eve") * 3:
        with pytest.raises(ServiceDown, match="failed several times in a row"):
            service.get(id)
    assert other.calls == 3
    for _ in range(9):
        with pytest.raises(TimeoutError):
            control.get("ada")
    assert other.calls == 12 and not control.is_left_alone


def test_it_is_tried_again_after_a_pause(make, other):
    service = make(failures=1, pause=0.02)
    other.error = OSError("it is down")
    with pytest.raises(OSError, match="it is down"):
        service.get("ada")
    other.error = None

    def is_back():
        try:
            return service.get("ada") == "ada 2"
        except ServiceDown:
            return False

    assert eventually(is_back) and not service.is_left_alone and other.calls == 2


def test_old_answers_are_given_while_it_is_left_alone(make, other):
    service = make(ttl=0.02, failures=1)
    service.get("ada")
    other.error = OSError("it is down")
    with pytest.raises(OSError, match="it is down"):
        service.get("bob")
    assert eventually(lambda: service.get("ada") == "ada 1" and service.stats.failed)
    with pytest.raises(ServiceDown):
        service.get("bob")
    assert other.calls == 2


def test_an_answer_that_is_an_error_does_not_mean_that_it_is_down(make, other):
    service = make(failures=1)
    other.error = ValueError("no such page")
    for _ in range(3):
        with pytest.raises(ValueError, match="no such page"):
            service.get("ada")
    assert other.calls == 3 and not service.is_left_alone
    service = make(failures=1, down=(ValueError,), prefix="strict:")
    with pytest.raises(ValueError, match="no such page"):
        service.get("ada")
    assert service.is_left_alone


def test_what_is_not_there_is_remembered_and_what_was_forgotten_asked_for(make, other):
    service = make()
    assert [service.get("nobody") for _ in range(3)] == [None] * 3 and other.calls == 1
    assert [service.get("ada"), service.invalidate("ada"), service.get("ada")][2] == "ada 3"


def test_every_key_expires(make, client):
    service = make(ttl=10, grace=50)
    service.get("ada"), service.get("nobody")
    assert len(client.keys()) == 2
    assert all(0 < client.pttl(key) <= 80_000 for key in client.keys())


def test_without_redis_each_call_goes_there(make, other):
    with cl.Server() as server:
        service = make(server.url)
        service.get("ada")
        server.kill()
        assert service.get("ada") == "ada 2"


def test_the_asyncio_twin_does_the_same(aclient, run_async, other):
    async def call(id):
        return other.call(id)

    async def main():
        service = AsyncService(aclient, call, ttl=60, grace=60, failures=1)
        first = [await service.get("ada"), await service.get("ada")]
        await service.invalidate("ada")
        other.error = OSError("it is down")
        for error in (OSError, ServiceDown):
            with pytest.raises(error):
                await service.get("ada")
        return first, service.is_left_alone, service.stats.loads

    assert run_async(main()) == (["ada 1"] * 2, True, 3)


@pytest.mark.parametrize(("id", "error"), [("", ValueError), (None, TypeError), (b"a", TypeError)])
def test_a_bad_id_is_refused_and_nothing_is_asked(make, other, client, id, error):
    with pytest.raises(error):
        make().get(id)
    assert other.calls == 0 and client.dbsize() == 0


def test_a_bad_setting_is_refused(make, aclient):
    for options in (
        {"ttl": 0},
        {"grace": -1},
        {"failures": 0},
        {"pause": 0},
        {"down": (5,)},
        {"down": (KeyboardInterrupt,)},
        {"call": None},
    ):
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            make(**options)
    with pytest.raises(TypeError, match="connect"):
        Service(aclient, str, ttl=60, grace=60)
