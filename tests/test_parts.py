"""The parts of the cache by themselves, as another room would take them: by public names alone."""

import asyncio
import sys
import threading
import time

import pytest
import redis

import cachelab as cl
from cachelab.cache.breaker import Breaker
from cachelab.cache.codec import Mark, decode
from cachelab.cache.flights import Flights
from cachelab.cache.gate import Budget, Gate, Gates, Room, breaker_of
from cachelab.cache.leases import KEPT, Leases
from cachelab.cache.pending import PendingDeletes
from cachelab.cache.stats import Counts, Tally
from cachelab.clients import deadlines_async

# Gate


@pytest.fixture
def gate(client):
    return Gate(client, Counts("a test"), Breaker(failures=2, pause=60))


def test_a_gate_gives_the_reply_and_takes_its_time_off_the_budget(gate, client):
    budget = Budget()
    whole = budget.left
    assert gate.call(budget, client.ping) is True and budget.left < whole
    assert gate.call(budget, client.echo, "word") == "word"


@pytest.mark.parametrize("fails", [True, False])
def test_who_waited_for_room_at_a_server_that_fails_has_waited_for_redis(
    server, monkeypatch, fails
):
    monkeypatch.setattr("cachelab.cache.gate.BUDGET", 5.0)

    async def main() -> float:
        client = cl.connect_async(f"{server.url}?max_connections=1")
        gate = Gate(client, Counts("a test"), Breaker())
        entered, go = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            entered.set()
            await go.wait()
            if fails:
                raise redis.TimeoutError("no answer")

        async def second() -> float:
            return deadlines_async.DEADLINE.get() - time.monotonic()

        calls = [asyncio.ensure_future(gate.call_async(Budget(), first))]
        await entered.wait()
        calls.append(asyncio.ensure_future(gate.call_async(Budget(), second)))
        await asyncio.sleep(0.2)  # the time that is waited
        go.set()
        _, left = await asyncio.gather(*calls)
        await client.connection_pool.disconnect()
        return left

    left = asyncio.run(main())
    assert left < 5 - 0.19 if fails else left > 5 - 0.1  # slow is not away


@pytest.mark.parametrize("is_away", [True, False])
def test_a_loop_that_was_away_is_not_a_server_that_is_slow(server, monkeypatch, is_away):
    monkeypatch.setattr("cachelab.cache.gate.BUDGET", 0.3)

    async def main() -> object:
        client = cl.connect_async(f"{server.url}?max_connections=1")
        gate = Gate(client, Counts("a test"), Breaker())
        entered, go = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            entered.set()
            await go.wait()

        gate.answered(1.0)  # the last call took a second
        calls = [asyncio.ensure_future(gate.call_async(Budget(), first))]
        await entered.wait()
        calls.append(asyncio.ensure_future(gate.call_async(Budget(), client.ping)))
        await asyncio.sleep(0)  # it waits for room now
        if is_away:
            time.sleep(0.5)  # noqa: ASYNC251
        else:
            await asyncio.wait(calls, return_when="FIRST_COMPLETED")
        go.set()
        _, reply = await asyncio.gather(*calls)
        await client.connection_pool.disconnect()
        return reply

    assert asyncio.run(main()) is (True if is_away else Mark.UNAVAILABLE)


def test_a_gate_counts_what_redis_refuses_and_what_does_not_come():
    counts = Counts("a test")
    with cl.Server() as server:
        client = cl.connect(server.url)
        gate = Gate(client, counts, Breaker(failures=2))
        assert gate.call(Budget(), client.execute_command, "NO-SUCH") is Mark.UNLEASED
        client.rpush("list", 1)
        assert gate.call(Budget(), client.get, "list") is Mark.OTHER_TYPE
        assert gate.breaker.state == "closed"
        server.kill()
        assert [gate.call(Budget(), client.ping) for _ in range(2)] == [Mark.UNAVAILABLE] * 2
    assert gate.breaker.state == "open" and counts.stats("open").errors == 4


def test_a_gate_that_has_failed_a_call_is_not_tried_again_by_it(gate, client):
    tries = []

    def dead():  # an error of Redis is Redis's, whoever passes it on
        tries.append(1)
        raise redis.ConnectionError("gone")

    budget = Budget()
    assert [gate.call(budget, dead) for _ in range(3)] == [Mark.UNAVAILABLE] * 3
    assert len(tries) == 1 and gate.call(Budget(), client.ping) is True


def test_what_somebody_else_raises_amid_a_call_passes_the_gate(gate, client):
    def limited():
        raise TimeoutError("a task's time is over")

    with pytest.raises(TimeoutError, match="over"):
        gate.call(Budget(), limited)
    assert gate.breaker.is_quiet


def test_an_open_breaker_shuts_the_gate_but_for_a_probe(gate, client):
    gate.breaker.failed(), gate.breaker.failed()
    assert gate.call(Budget(), client.ping) is Mark.UNAVAILABLE
    assert gate.call(Budget(probe=True), client.ping) is True
    assert gate.breaker.state == "closed"


def test_an_asyncio_gate_does_the_same(aclient, run_async):
    async def main():
        gate = Gate(aclient, Counts("a test"), Breaker(failures=1, pause=60))
        served = await gate.call_async(Budget(), aclient.ping)
        gate.breaker.failed()
        return served, await gate.call_async(Budget(), aclient.ping)

    assert run_async(main()) == (True, Mark.UNAVAILABLE)


def test_gates_to_one_server_share_its_breaker_and_other_users_of_it_do_not(server, client):
    counts = Counts("a test")
    other = cl.connect(server.url.replace("/0", "/1"), check=False)
    one, two, three = (Gates(each, counts).only for each in (client, client, other))
    assert one.breaker is two.breaker is not three.breaker
    assert breaker_of(("a",)) is not breaker_of(("b",))


def test_pauses_of_breakers_differ_so_that_a_fleet_does_not_probe_in_step():
    now = [0.0]
    breakers = [Breaker(failures=1, pause=1.0, clock=lambda: now[0]) for _ in range(50)]
    for breaker in breakers:
        breaker.failed()
    now[0] = 0.9
    probes = sum(breaker.allows() for breaker in breakers)
    assert 5 < probes < 45  # without jitter 0 or 50


def test_room_that_is_left_twice_or_never_entered_is_as_large_as_before():
    room = Room(places=2)
    assert room.enter("a", 0) and room.enter("b", 0) and not room.enter("c", 0)
    room.leave("a"), room.leave("a"), room.leave("stranger")
    assert room.enter("c", 0) and not room.enter("d", 0)


def test_who_waits_for_room_gets_it_when_another_leaves():
    room, entered = Room(places=1), threading.Event()
    room.enter("first", 0)
    waiter = threading.Thread(target=lambda: room.enter("second", 30) and entered.set())
    waiter.start()
    while not room.queued:
        pass
    room.leave("first")
    assert entered.wait(30)
    waiter.join()


# Leases


@pytest.fixture
def leases(client):
    return Leases(client, prefix="p:", lease=30)


def test_a_lease_is_taken_once_and_its_token_stores_once(leases, client):
    tokens = leases.tokens(["ada"])
    assert leases.take(tokens, {}) == [[1, tokens["ada"].encode()]]
    assert leases.take(leases.tokens(["ada"]), {}) == [[0, tokens["ada"].encode()]]
    assert KEPT - 30_000 < client.pttl("p:ada") <= KEPT
    entry = {"ada": (tokens["ada"], '"Ada"', "60000")}
    assert [leases.store(entry), leases.store(entry)] == [[1], [1]]  # a repeated try is no other
    assert leases.store({"ada": (tokens["ada"], '"other"', "60000")}) == [0]
    assert decode(leases.read("p:ada")) == "Ada"


def test_a_delete_ends_a_lease_and_spares_other_types(leases, client):
    tokens = leases.tokens(["ada"])
    leases.take(tokens, {})
    assert leases.delete(["ada"]) == [tokens["ada"].encode()]
    assert leases.store({"ada": (tokens["ada"], "1", "60000")}) == [0] and not client.exists(
        "p:ada"
    )
    client.rpush("p:list", 1)
    (refusal,) = leases.delete(["list"])
    assert "WRONGTYPE" in str(refusal) and client.exists("p:list")


def test_a_lease_is_taken_over_when_it_is_old_or_its_owner_has_ended(leases, client):
    tokens = leases.tokens(["ada"])
    leases.begin(tokens.values())
    token = tokens["ada"].encode()
    assert not leases.may_be_taken(token, KEPT - 29_000) and not leases.is_orphan(token)
    assert leases.may_be_taken(token, KEPT - 31_000)
    leases.done(tokens.values())
    assert leases.is_orphan(token) and leases.may_be_taken(token, KEPT)
    assert not leases.is_orphan(b"lease:of-another")


# Flights


def test_a_flight_is_begun_once_and_followed_until_it_lands():
    group, landed = Flights(object), []
    (mine, _), (_, theirs) = group.join(["ada"]), group.join(["ada"])
    flight = mine["ada"]
    assert theirs == {"ada": flight} and flight.follow(lambda: landed.append("woken"))
    group.land(flight, '"Ada"', as_of=1.0)
    assert landed == ["woken"] and (flight.outcome, flight.as_of) == ('"Ada"', 1.0)
    assert not flight.follow(lambda: None) and group.join(["ada"])[0]  # who comes now begins anew


def test_no_read_joins_a_flight_that_was_invalidated():
    group = Flights(object)
    first = group.join(["ada"])[0]["ada"]
    group.invalidate("ada")
    second = group.join(["ada"])[0]["ada"]
    assert first.is_invalidated and second is not first
    group.land(first)  # which does not end the other
    assert group.join(["ada"])[1] == {"ada": second}


# Pending deletes, counts


def test_a_delete_is_forgotten_when_what_it_was_for_has_expired():
    pending = PendingDeletes(longest=10)
    for n in range(5):
        pending.add(f"u{n}", since=float(n))
    assert list(pending.due([], now=12.5)) == ["u3", "u4"] == list(pending)


def test_a_tally_loses_nothing_to_threads():
    tally = Tally()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: [tally.one() for _ in range(10_000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    tally.add(5)
    assert int(tally) == int(tally) == 40_005
