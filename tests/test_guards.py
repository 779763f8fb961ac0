"""The trials of a guard accept right ones, however written, and find each fault of a wrong one."""

import threading
import time
import uuid
from concurrent.futures import Future

import pytest
import redis
from conftest import at_best

import cachelab as cl
from cachelab.lab import contract, guards

RELEASE = """if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])"""


def take(client, name):
    token = uuid.uuid4().hex
    return token if client.set(name, token, nx=True, px=1000) else None


def give_back(client, name, token):
    client.eval(RELEASE, 1, name, token)


def give_back_by_watching(client, name, token):
    with client.pipeline() as pipe:
        try:
            pipe.watch(name)
            if pipe.get(name) == token:
                pipe.multi()
                pipe.delete(name)
                pipe.execute()
        except redis.WatchError:
            pass


def take_for_ever(client, name):
    token = uuid.uuid4().hex
    return token if client.set(name, token, nx=True) else None


def take_then_expire(client, name):
    token = take_for_ever(client, name)
    if token:
        client.pexpire(name, 1000)
    return token


def take_after_a_look(client, name):
    token = uuid.uuid4().hex
    return client.set(name, token, px=1000) and token if client.get(name) is None else None


def take_what_is_taken(client, name):
    take(client, name)
    return uuid.uuid4().hex


def take_as_everybody(client, name):
    return "mine" if client.set(name, "mine", nx=True, px=1000) else None


def give_back_anybodys(client, name, token):
    client.delete(name)


def give_back_after_a_look(client, name, token):
    if client.get(name) == token:
        client.delete(name)


def take_and_prolong(client, name):
    token = uuid.uuid4().hex
    with client.pipeline() as pipe:
        pipe.set(name, token, nx=True).pexpire(name, 1000)
        return token if pipe.execute()[0] else None


def give_back_what_is_not_ours(client, name, token):
    held = client.getdel(name)
    if held not in (None, token):
        client.set(name, held, px=1000)


def held(call):
    try:
        return call()
    except AssertionError:
        return False


def broken(client, take, give_back):
    """Return the sentences that a lock does not hold, each as a word or two of it."""
    words = ["None", "else", "in a second", "dies", "late", "hands"]
    found = []
    for word, (sentence, holds) in zip(
        words, guards.LockTrials(client, "lock", take, give_back).sentences().items(), strict=True
    ):
        assert word in sentence
        found += [] if held(holds) else [word]
    return found


@pytest.mark.parametrize("release", [give_back, give_back_by_watching])
def test_a_right_lock_holds_every_sentence_however_it_is_released(client, release):
    assert at_best(lambda: broken(client, take, release) == [])


@pytest.mark.parametrize(
    ("take", "give_back", "words"),
    [
        (take_what_is_taken, give_back, ["None"]),
        (take_after_a_look, give_back, ["else"]),
        (take_for_ever, give_back, ["in a second", "dies"]),
        (take_then_expire, give_back, ["dies"]),
        (take_as_everybody, give_back, ["late"]),
        (take, give_back_anybodys, ["late"]),
        (take, give_back_after_a_look, ["hands"]),
        (take_and_prolong, give_back, ["in a second"]),
        (take, give_back_what_is_not_ours, ["late"]),
    ],
)
def test_a_wrong_lock_breaks_the_sentence_of_its_fault(client, take, give_back, words):
    def is_told() -> bool:
        found = broken(client, take, give_back)
        return words[0] in found and set(found) <= {*words, "None"}

    assert at_best(is_told)


class Flights:
    """Takes every error, tells the followers, keeps nothing."""

    errors: type[BaseException] = BaseException
    tells, lands, lands_failed, leaves_early = True, True, True, False

    def __init__(self, url, load, ttl, missing_ttl):
        self.load, self.under_way, self.lock = load, {}, threading.Lock()

    def get(self, id):
        with self.lock:
            leads, flight = id not in self.under_way, self.under_way.setdefault(id, Future())
        if leads:
            self.lead(id, flight)
        return flight.result()

    def lead(self, id, flight):
        if self.leaves_early:
            del self.under_way[id]
        try:
            flight.set_result(self.load(id))
            if self.lands:
                self.under_way.pop(id, None)
        except self.errors as error:
            if self.lands_failed:
                self.under_way.pop(id, None)
            if not self.tells:
                raise
            flight.set_exception(error)


class KeepsErrors(Flights):
    lands_failed = False


class KeepsValues(Flights):
    lands = False


class TellsNobody(Flights):
    tells = False


class LetsTimeLimitsPass(Flights):
    errors = (Exception, SystemExit)


class LooksThenEnters(Flights):
    """No lock: between a look and an entry somebody else may enter."""

    def get(self, id):
        if id in self.under_way:
            return self.under_way[id].result()
        flight = self.under_way[id] = Future()
        self.lead(id, flight)
        return flight.result()


class EverybodyClears(Flights):
    """Whoever leaves takes the entry away, be it of the next flight."""

    def get(self, id):
        try:
            return super().get(id)
        finally:
            self.under_way.pop(id, None)


class LoadsAgain(Flights):
    """Each who waited for a load that failed makes it again."""

    def get(self, id):
        try:
            return super().get(id)
        except Exception:
            return self.load(id)


class LeavesEarly(Flights):
    leaves_early = True


def test_the_sentences_of_the_suite_are_promises_of_it():
    asked = {guards.LOADS_ONCE, guards.NOT_CACHED, guards.HITS, guards.LEASE_EXPIRES}
    assert asked | {*guards.OVERTAKEN} <= set(contract.PROMISES)


def test_a_right_single_flight_holds_every_sentence():
    assert at_best(lambda: all(map(held, guards.flight_trials(Flights).values())))


@pytest.mark.parametrize(
    ("cache", "number"),
    [
        (LeavesEarly, 0),
        (LooksThenEnters, 1),
        (EverybodyClears, 2),
        (KeepsValues, 3),
        (TellsNobody, 4),
        (LoadsAgain, 4),
        (LetsTimeLimitsPass, 5),
        (KeepsErrors, 6),
    ],
)
def test_a_wrong_single_flight_breaks_the_sentence_of_its_fault(cache, number):
    assert not held([*guards.flight_trials(cache).values()][number])


STORE_IF = """if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])"""


class Leased:
    """Stores what it loaded if its own token is still there."""

    lease, script, waits = {"px": 10_000}, STORE_IF, False

    def __init__(self, url, load, ttl, missing_ttl):
        self.client, self.load, self.ttl_ms = cl.connect(url), load, int(1000 * ttl)

    def get(self, id):
        token = self.token()
        while (held := self.client.set(id, token, nx=True, get=True, **self.lease)) is not None:
            if not held.startswith("lease:"):
                return held
            if not self.waits:
                return self.meets(id, held)
            time.sleep(0.005)
        value = self.load(id)
        self.store(id, token, value)
        return value

    def token(self):
        return f"lease:{uuid.uuid4().hex}"

    def meets(self, id, held):
        return self.load(id)

    def store(self, id, token, value):
        self.client.eval(self.script, 1, id, token, value, self.ttl_ms)

    def invalidate(self, id):
        self.client.delete(id)


class Waits(Leased):
    waits = True


class NeverStores(Leased):
    def store(self, id, token, value):
        pass


class StoresInAnyCase(Leased):
    def store(self, id, token, value):
        self.client.set(id, value, px=self.ttl_ms)


class LeasesForEver(Leased):
    lease = {}


class KeepsTheLeasesTime(Leased):
    script = STORE_IF.replace("'PX', ARGV[3]", "'KEEPTTL'")


class LooksThenStores(Leased):
    def store(self, id, token, value):
        if self.client.get(id) == token:
            self.client.set(id, value, px=self.ttl_ms)


class OneToken(Leased):
    def token(self):
        return "lease:"


class HandsOutTheToken(Leased):
    def meets(self, id, held):
        return held


class StoresWithoutALease(Leased):
    def meets(self, id, held):
        value = self.load(id)
        self.client.set(id, value, px=self.ttl_ms)
        return value


def lease_trials(cache, server):
    return [*guards.LeaseTrials(cache, server.url, "key").sentences().values()]


@pytest.mark.parametrize("cache", [Leased, Waits])
def test_a_right_lease_holds_every_sentence_whether_its_followers_load_or_wait(cache, server):
    assert at_best(lambda: all(map(held, lease_trials(cache, server))))


@pytest.mark.parametrize(
    ("cache", "number"),
    [
        (NeverStores, 0),
        (StoresInAnyCase, 1),
        (LeasesForEver, 2),
        (KeepsTheLeasesTime, 3),
        (LooksThenStores, 4),
        (OneToken, 5),
        (HandsOutTheToken, 6),
        (StoresWithoutALease, 6),
    ],
)
def test_a_wrong_lease_breaks_the_sentence_of_its_fault(cache, number, server):
    assert not held(lease_trials(cache, server)[number])


class Site:
    """A filter that lets ids with a 7 pass by luck, in front of a cache and a database."""

    def __init__(self, client, database):
        self.cache = cl.CacheAside(client, database.get, ttl=60)
        self.client, self.database, self.added = client, database, set()

    def is_known(self, id):
        return "7" in id or id in self.added

    def get(self, id):
        return self.cache.get(id) if self.is_known(id) else None

    def seen(self, *steps):
        """Return what the trials say of a register that takes these steps in order."""

        def register(id, value):
            for step in steps:
                {
                    "add": lambda: self.added.add(id),
                    "put": lambda: self.database.put(id, value),
                    "invalidate": lambda: self.cache.invalidate(id),
                    "forget": self.client.flushall,
                }[step]()

        trials = guards.NewcomerTrials(register, self.get, self.is_known, self.database)
        return [held(call) for call in trials.sentences().values()]


@pytest.fixture
def site(client):
    database = cl.UserDatabase(latency=0)
    yield Site(client, database)
    database.close()


@pytest.mark.parametrize(
    "steps",
    [("add", "put", "invalidate"), ("put", "add", "invalidate"), ("put", "invalidate", "add")],
)
def test_a_newcomer_is_found_when_the_delete_follows_the_row_wherever_the_filter_comes(site, steps):
    assert site.seen(*steps) == [True, True, True]


@pytest.mark.parametrize(
    ("steps", "seen"),
    [
        (("put", "invalidate"), [False, True, True]),
        (("add", "put"), [True, False, False]),
        (("add", "invalidate", "put"), [True, True, False]),
        (("put", "add", "forget"), [False, False, True]),
    ],
)
def test_a_step_that_is_left_out_comes_too_early_or_does_too_much_is_seen(site, steps, seen):
    assert site.seen(*steps) == seen
