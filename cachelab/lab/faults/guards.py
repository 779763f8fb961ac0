"""Stories that tell a good guard from a wrong one: locks, leases, flights, filters of known ids."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from threading import Event, Thread, current_thread
from time import sleep
from unittest.mock import patch

import redis

from cachelab.clients import connect
from cachelab.database import UserDatabase
from cachelab.lab import contract
from cachelab.lab.faults import stampede
from cachelab.lab.measure.callers import after_first

LIFE_MS = 1000  # that a lock should live for
LOADS_ONCE = "readers of a cold key load once"
NOT_CACHED = "a load that raises reaches its readers and is not cached"
HITS = "a second read is a hit and loads nothing"
OVERTAKEN = (
    "a load overtaken by invalidate leaves nothing behind",
    "a load overtaken by another process's invalidate leaves nothing behind",
)
LEASE_EXPIRES = "what the cache keeps while it loads expires by itself, too"
PATIENCE = 5.0  # seconds until a call of the suite counts as hung
TTL = 60  # seconds, of the values that a cache under trial stores


class Died(BaseException):
    """A process ended here: nothing catches that."""


class TimeLimit(BaseException):
    """A framework ended the load: `except Exception` does not catch that."""


class Noticed(str):
    """An id that calls a function whenever it is looked for in a dict, or put there."""

    def __new__(cls, text: str, notice: Callable[[], object]) -> "Noticed":
        id = super().__new__(cls, text)
        vars(id)["notice"] = notice
        return id

    def __hash__(self) -> int:
        vars(self)["notice"]()
        return super().__hash__()


@dataclass(frozen=True)
class LockTrials:
    """The trials of one lock, each on a free name; some have something happen between two commands.

    Args:
        client: Of the server that the locks are on.
        name: Of the key that is the lock; it is deleted before each trial.
        take: Called with client and name; returns a token, or None where somebody else holds it.
        give_back: Called with client, name and token.
    """

    client: redis.Redis
    name: str
    take: Callable[[redis.Redis, str], str | None]
    give_back: Callable[[redis.Redis, str, str | None], object]

    def sentences(self) -> dict[str, Callable[[], bool]]:
        """Return {sentence: callable}, as `exercise.check` takes them."""
        return {
            "the second gets None, until it is given back": self._is_exclusive,
            "nobody else gets in between two commands of take": self._has_one_holder,
            "after its holder's death it is free in a second": self._ends_by_itself,
            "so it is when the holder dies between two commands of take": self._ends_at_any_death,
            "a late release leaves the next holder's lock": self._is_kept_when_late,
            "a lock that changes hands during give_back stays": self._is_kept_when_overtaken,
        }

    def _taken(self) -> str | None:
        self.client.delete(self.name)
        return self.take(self.client, self.name)

    def _is_exclusive(self) -> bool:
        first = self._taken()
        second = self.take(self.client, self.name)
        if first is None or second is not None:
            return False
        self.give_back(self.client, self.name, first)
        return self.take(self.client, self.name) is not None

    def _has_one_holder(self) -> bool:
        bens: list[object] = []

        def ben_comes() -> None:
            bens.append(self.client.set(self.name, "ben", nx=True, px=LIFE_MS))

        self.client.delete(self.name)
        with after_first(self.client, ben_comes):
            token = self.take(self.client, self.name)
        return token is None or not any(bens)

    def _ends_by_itself(self) -> bool:
        self._taken()
        left = self.client.pttl(self.name)
        if not LIFE_MS / 2 < left <= LIFE_MS:
            raise AssertionError("it has no expiry" if left == -1 else f"it has {left} ms left")
        self.client.pexpire(self.name, LIFE_MS // 2)
        self.take(self.client, self.name)
        if self.client.pttl(self.name) > LIFE_MS // 2:
            raise AssertionError("whoever tries to take it makes it live longer")
        return True

    def _ends_at_any_death(self) -> bool:
        def dies() -> None:
            raise Died

        self.client.delete(self.name)
        with suppress(Died), after_first(self.client, dies):
            self.take(self.client, self.name)
        return self.client.pttl(self.name) != -1

    def _is_kept_when_late(self) -> bool:
        ada = self._taken()
        self.client.delete(self.name)  # as if her lock had run out
        self.take(self.client, self.name)
        cleos: list[object] = []

        def cleo_comes() -> None:
            cleos.append(self.client.set(self.name, "cleo", nx=True, px=LIFE_MS))

        with after_first(self.client, cleo_comes):
            self.give_back(self.client, self.name, ada)
        return not any(cleos) and self.client.exists(self.name) == 1

    def _is_kept_when_overtaken(self) -> bool:
        ada = self._taken()
        bens: list[object] = []

        def ben_comes() -> None:  # as if Ada's lock had just run out
            bens.append(self.client.set(self.name, "ben", px=LIFE_MS))

        with after_first(self.client, ben_comes):
            self.give_back(self.client, self.name, ada)
        return not bens or self.client.exists(self.name) == 1


@dataclass(frozen=True)
class LeaseTrials:
    """The trials of a cache that stores under a lease; the first three ask the contract suite.

    Args:
        cache: A class that is built as ``cache(url, load, ttl, missing_ttl)`` and connects with
            ``connect(url)``; its values are texts.
        url: Of the server that the other trials use.
        name: Of the key that they read; it is deleted before each.
    """

    cache: type
    url: str
    name: str

    def sentences(self) -> dict[str, Callable[[], bool]]:
        """Return {sentence: callable}, as `exercise.check` takes them."""
        return {
            "a second read is a hit": lambda: _holds(self.cache, HITS),
            "an overtaken load leaves nothing": lambda: _holds(self.cache, *OVERTAKEN),
            "its lease expires": lambda: _holds(self.cache, LEASE_EXPIRES),
            "its value expires": self._value_expires,
            "a delete between comparing and storing is respected": self._respects_a_late_delete,
            "a late load stores nothing under the lease of the next reader": self._keeps_to_its_own,
            "who meets the token of another gets a value, and stores nothing old": self._meets_one,
        }

    def _get(self, load: stampede.Load) -> str:
        read: str = self.cache(self.url, load, TTL, TTL).get(self.name)
        return read

    def _begun(self, load: stampede.Load) -> tuple[Thread, list[object]]:
        """Return a thread that reads, and the list that its answer or error goes into."""
        seen: list[object] = []

        def read() -> None:
            try:
                seen.append(self._get(load))
            except Exception as error:
                seen.append(error)

        thread = Thread(target=read, daemon=True)
        thread.start()
        return thread, seen

    def _free(self) -> redis.Redis:
        client = connect(self.url)
        client.delete(self.name)
        return client

    def _value_expires(self) -> bool:
        client = self._free()
        self._get(lambda id: "new")
        left = client.pttl(self.name)
        if not 50_000 < left <= 60_000:
            raise AssertionError(f"milliseconds that it has left of 60,000: {left} (-1: for ever)")
        return True

    def _respects_a_late_delete(self) -> bool:
        client = self._free()  # the very client that the cache is given
        with ExitStack() as after_the_load:
            loads = count()

            def load(id: str) -> str:
                if next(loads) == 0:
                    deletes = after_first(client, lambda: client.delete(id))
                    after_the_load.enter_context(deletes)
                return "old"

            self._get(load)
            client.ping()  # if nothing was stored, the delete comes now
        return client.get(self.name) != "old"

    def _keeps_to_its_own(self) -> bool:
        """While Ada loads her copy is deleted, and Ben begins to load: she ends first."""
        client = self._free()
        loads, ends = Event(), Event()
        bens: list[Thread] = []

        def new(id: str) -> str:
            loads.set()
            ends.wait(PATIENCE)
            return "new"

        def old(id: str) -> str:
            client.delete(id)
            bens.append(self._begun(new)[0])
            loads.wait(PATIENCE)
            return "old"

        try:
            self._get(old)
            return client.get(self.name) != "old"
        finally:
            ends.set()
            for ben in bens:
                ben.join(PATIENCE)

    def _meets_one(self) -> bool:
        """While Ada loads, Cleo comes; the row changes as soon as she has loaded, or waits."""
        client = self._free()
        row = ["old"]
        loads, changed, ends = Event(), Event(), Event()

        def change() -> None:
            row[0] = "new"
            client.delete(self.name)
            changed.set()

        def adas(id: str) -> str:
            value = row[0]
            loads.set()
            ends.wait(PATIENCE)
            return value

        def cleos(id: str) -> str:
            value = row[0]
            change()
            return value

        ada, _ = self._begun(adas)
        loads.wait(PATIENCE)
        cleo, seen = self._begun(cleos)
        if not changed.wait(0.2):
            change()
        ends.set()
        ada.join(PATIENCE)
        cleo.join(PATIENCE)
        if seen not in (["old"], ["new"]):
            raise AssertionError(f"she gets {seen[0]!r:.20}" if seen else "she gets no answer")
        return client.get(self.name) != "old"


def flight_trials(cache: type) -> dict[str, Callable[[], bool]]:
    """Return {sentence: callable}, as `exercise.check` takes them; two ask the contract suite.

    Args:
        cache: A class that is built as ``cache(url, load, ttl, missing_ttl)`` and keeps nothing
            but the flights that are under way.
    """

    def get(load: stampede.Load) -> stampede.Load:
        made: stampede.Load = cache("", load, 60, 60).get
        return made

    def loads_anew() -> bool:
        loads: list[str] = []
        read = get(loads.append)
        read("ada")
        read("ada")
        return loads == ["ada", "ada"]

    def reaches_all(error: type[BaseException]) -> bool:
        loads: list[str] = []

        def counted(load: stampede.Load) -> stampede.Load:
            def one(id: str) -> str | None:
                loads.append(id)
                return load(id)

            return get(one)

        seen = set(stampede.outcomes(counted, error))
        if seen != {error.__name__}:
            raise AssertionError(f"they got: {', '.join(sorted(seen))}")
        if len(loads) > 2:  # a reader may come late once: its load is one more
            raise AssertionError(f"the failing load was made {len(loads)} times")
        return True

    return {
        LOADS_ONCE: lambda: _holds(cache, LOADS_ONCE),
        "so do two who come at the same moment": lambda: _has_one_leader(get),
        "a follower of an old flight leaves the next one alone": lambda: _is_left_alone(get),
        "when a flight has landed, the next read loads anew": loads_anew,
        "all who wait for a failing load get its error": lambda: reaches_all(LookupError),
        "so they do when a framework's time limit ends it": lambda: reaches_all(TimeLimit),
        NOT_CACHED: lambda: _holds(cache, NOT_CACHED),
    }


def _has_one_leader(get: stampede.Make) -> bool:
    """Ben comes when Ada has found no flight, and is about to enter hers."""
    begun, two, ends = Event(), Event(), Event()
    looks = count()

    def load(id: str) -> str:
        (two if begun.is_set() else begun).set()
        ends.wait(PATIENCE)
        return "value"

    def ben_comes() -> None:
        if current_thread() is ada and next(looks) == 1 and not begun.is_set():
            ben.start()
            begun.wait(0.1)  # or he waits, as he should

    read = get(load)
    ada = Thread(target=read, args=[Noticed("cold", ben_comes)], daemon=True)
    ben = Thread(target=read, args=["cold"], daemon=True)
    ada.start()
    begun.wait(PATIENCE)
    at_once = two.wait(0.1)
    ends.set()
    ada.join(PATIENCE)
    return not at_once


def _is_left_alone(get: stampede.Make) -> bool:
    """Fred follows Ada; when he looks once more, Cleo begins a flight, and after him Dora comes."""
    asked = {"ada": "cold", "cleo": "cold", "dora": "cold", "eve": "other"}  # eve's never lands
    loads = {name: Event() for name in asked}
    landed, over, fred_comes = Event(), Event(), Event()

    def load(id: str) -> str:
        for name, reader in readers.items():
            if reader is current_thread():
                loads[name].set()
                (landed if name == "ada" else over).wait(PATIENCE)
        return "value"

    def fred_looks() -> None:
        fred_comes.set()
        if current_thread() is fred and landed.is_set() and readers["cleo"].ident is None:
            readers["ada"].join(0.2)
            begins("cleo", 0.2)

    def begins(name: str, patience: float = PATIENCE) -> bool:
        readers[name].start()
        return loads[name].wait(patience)

    read = get(load)
    readers = {name: Thread(target=read, args=[id], daemon=True) for name, id in asked.items()}
    fred = Thread(target=read, args=[Noticed("cold", fred_looks)], daemon=True)
    begins("eve")
    begins("ada")
    fred.start()
    fred_comes.wait(PATIENCE)
    sleep(0.05)  # until he waits, however he does
    landed.set()
    fred.join(PATIENCE)
    at_once = loads["cleo"].is_set() and begins("dora", 0.2)
    over.set()
    return not at_once


def _holds(cache: type, *promises: str) -> bool:
    for promise in promises:
        if (seen := contract.verdict(cache, promise, PATIENCE)) is not None:
            raise AssertionError(seen)
    return True


@dataclass(frozen=True)
class NewcomerTrials:
    """The trials of a function that registers a user behind a filter of known ids.

    Args:
        register: Called with an id and its value; what is tried.
        get: Reads an id through filter and cache, and remembers that there is none.
        is_known: Whether the filter lets an id pass.
        database: Where the rows are.
    """

    register: Callable[[str, str], object]
    get: Callable[[str], str | None]
    is_known: Callable[[str], bool]
    database: UserDatabase

    def sentences(self) -> dict[str, Callable[[], bool]]:
        """Return {sentence: callable}, as `exercise.check` takes them."""
        return {
            "who was turned away by the filter is let in": lambda: self._is_found(lucky=False),
            "so is who had passed it and been remembered as absent": lambda: self._is_found(True),
            "and who is asked for while register is at work": self._is_found_though_asked_for,
        }

    def _is_found(self, lucky: bool) -> bool:
        id = self._stranger(lucky)
        self.get(id)
        self.register(id, "welcome")
        return self._finds(id) and self._stays(id)

    def _is_found_though_asked_for(self) -> bool:
        id = self._stranger(lucky=True)
        put = self.database.put

        def asked_for_and_put(id: str, value: str) -> None:
            self.get(id)
            put(id, value)

        with patch.object(self.database, "put", asked_for_and_put):
            self.register(id, "welcome")
        return self._finds(id)

    def _finds(self, id: str) -> bool:
        seen = self.get(id)
        if seen != "welcome":
            raise AssertionError(f"a read gives {seen!r}")
        return True

    def _stays(self, id: str) -> bool:
        self.register(self._stranger(lucky=False), "another")
        reads = self.database.reads
        self.get(id)
        if self.database.reads > reads:
            raise AssertionError("whoever comes next throws away his copy")
        return True

    def _stranger(self, lucky: bool) -> str:
        """Return an id that nobody has, and that passes the filter only if it is lucky."""
        ids = (f"late-{number}" for number in count())
        likely = (id for id in ids if self.is_known(id) == lucky)
        return next(id for id in likely if self.database.get(id) is None)
