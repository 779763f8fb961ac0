"""The bench of 10 and 10b: limits at a turn, programs that die, new Pythons, trials of answers."""

import datetime
import json
import os
import random
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any
from unittest.mock import patch

import pandas as pd
import redis

from cachelab import _check
from cachelab.errors import CachelabError
from cachelab.lab.faults.writing import source
from cachelab.lab.measure.callers import after_first, crowd

TRIES = 20  # runs that a machine may spoil by standing still
PLACES = 6  # behind which command of an answer somebody comes, at most
LIVES = 1800  # seconds that a session of a trial may live
SHORTEST = 16  # letters of an id that cannot be tried out
ALIKE = 4  # letters that two of them may share by chance, in front and at the end
SEPARATORS = ("", *string.punctuation, " ", "\n", "\t", "\0", "::", "||", "--", "__", ", ")
_PRINTS = "\n\nimport json, sys\nprint(json.dumps({name}(*json.loads(sys.argv[1]))))\n"


class Died(BaseException):
    """The program ends here: nothing that catches errors holds it up."""


def dying(client: redis.Redis, after: int) -> redis.Redis:
    """Return a client like this one, whose program dies when its nth command is done.

    Args:
        client: Whose connections it uses.
        after: Which command is the last, 1 for the first; those of a pipeline do not count.
    """
    after = _check.whole("after", after, least=1)
    twin, done = redis.Redis(connection_pool=client.connection_pool), 0
    send = twin.execute_command

    def execute_command(*words: Any, **options: Any) -> Any:
        nonlocal done
        reply = send(*words, **options)
        done += 1
        if done == after:
            raise Died
        return reply

    vars(twin)["execute_command"] = execute_command
    return twin


def after_a_death(run: Callable[[redis.Redis], Any], client: redis.Redis, after: int) -> Any:
    """Run, die behind the nth command, run again; return what the second run returns.

    Raises:
        CachelabError: It has no nth command.
    """
    try:
        run(dying(client, after))
    except Died:
        return run(client)
    raise CachelabError(f"after={after!r} is behind its last command: it has fewer")


@contextmanager
def clock_ahead(seconds: float) -> Iterator[None]:
    """Set the clock of this process ahead, as far as `time.time` tells it, inside the block."""
    real, ahead = time.time, _check.number("seconds", seconds)
    with patch("time.time", lambda: real() + ahead):
        yield


@contextmanager
def _one_moment(function: Callable[..., Any], at: float) -> Iterator[None]:
    """Let a function see this time, and always the same state of `random`, inside the block."""

    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Stopped":
            return cls.fromtimestamp(at, tz)

    new = {"time": lambda: at, "time_ns": lambda: int(at * 1e9)}
    clocks = [
        (time.time, new["time"]),
        (time.time_ns, new["time_ns"]),
        (datetime.datetime, Stopped),
    ]
    names = getattr(function, "__globals__", {})
    held = {name: stopped for name in names for clock, stopped in clocks if names[name] is clock}
    before = random.getstate()
    random.seed(10)
    try:
        with (
            patch.dict(vars(time), new),
            patch.object(datetime, "datetime", Stopped),
            patch.dict(names, held),
        ):
            yield
    finally:
        random.setstate(before)


def in_new_pythons(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """Call a function in so many new Python processes; return what each call returned.

    Args:
        function: It is taken along with the functions and plain values that it uses.
        *arguments: What JSON can hold, as can what it returns.
        count: How many processes.

    Raises:
        CachelabError: It is a lambda, uses what cannot go along, or fails there.
    """
    if function.__name__ == "<lambda>":
        raise CachelabError("a lambda has no name that a new Python could call: write it with def")
    program = source(function) + _PRINTS.format(name=function.__name__)
    command = [sys.executable, "-c", program, json.dumps(arguments)]
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    returned = []
    for _ in range(_check.whole("count", count, least=1)):
        done = subprocess.run(command, env=usual, capture_output=True, text=True)
        if done.returncode:
            raise CachelabError(f"in a new Python: {done.stderr.strip().splitlines()[-1]}")
        returned.append(json.loads(done.stdout))
    return returned


def at_the_turn(
    takes: Mapping[str, Callable[[str], bool]],
    window: float,
    around: float = 0.3,
    step: float = 0.01,
) -> pd.DataFrame:
    """Call limiters again and again, shortly before a window of the clock ends until after that.

    Windows are those that `int(time.time() // window)` numbers. A run in which the machine stood
    still is made anew, for callers of other names.

    Args:
        takes: Limiter to a function of a caller's name, which says whether a call passes.
        window: Seconds of a window.
        around: Seconds before and after its end; a quarter of a window at most.
        step: Seconds between two calls of a limiter.

    Returns:
        A frame (limiter, at, calls): seconds since the turn, and how many have passed by then.
    """
    window = _check.number("window", window, above=0, high=60)
    around = _check.number("around", around, above=0, high=window / 4)
    for number in range(TRIES):
        turn = (int((time.time() + 2 * around) // window) + 1) * window
        time.sleep(max(0.0, turn - around - time.time()))
        rows: list[tuple[str, float, int]] = [(name, -around, 0) for name in takes]
        passed = dict.fromkeys(takes, 0)
        while (at := time.time() - turn) < around:
            for name, take in takes.items():
                passed[name] += take(f"caller-{turn:.0f}-{number}")
                rows.append((name, at, passed[name]))
            time.sleep(step)
        seen = pd.DataFrame(rows, columns=["limiter", "at", "calls"])
        is_even = seen["at"].diff().max() < around / 4 and at < 1.5 * around
        if is_even and len(seen) * step > around * len(
            takes
        ):  # half of the calls that there may be
            return seen
    raise CachelabError(f"the machine stood still in {TRIES} runs one after the other")


def token_bucket(rate: float, burst: int, calls: Iterable[float]) -> pd.DataFrame:
    """Simulate a bucket that begins full: which of the calls pass.

    Args:
        rate: Tokens a second.
        burst: Tokens that it holds.
        calls: Seconds at which calls come, in order.

    Returns:
        A frame (at, calls, what): how many calls were "sent", and have "passed", by then.
    """
    rate = _check.number("rate", rate, above=0)
    tokens = float(burst := _check.whole("burst", burst, least=1))
    rows: list[tuple[float, int, str]] = [(0.0, 0, "sent"), (0.0, 0, "passed")]
    passed, last = 0, 0.0
    for number, at in enumerate(calls, 1):
        tokens, last = min(burst, tokens + rate * (at - last)), at
        if tokens >= 1 - 1e-9:
            passed, tokens = passed + 1, tokens - 1
        rows += [(at, number, "sent"), (at, passed, "passed")]
    return pd.DataFrame(rows, columns=["at", "calls", "what"])


@dataclass(frozen=True)
class TakeOutTrials:
    """The trials of a function that takes so many of an item out of a cart, which is a hash.

    Args:
        client: Of the server.
        key: Of the cart; it is written anew before each trial.
        take_out: Called with client, key, item and quantity.
    """

    client: Any
    key: str
    take_out: Callable[[Any, str, str, int], object]

    def sentences(self) -> dict[str, Callable[[], bool]]:
        """Return {sentence: callable}, as `exercise.check` takes them."""
        return {
            "two out of five leave three": lambda: self._left(5, 2, "3", "bag"),
            "a line of which nothing is left is gone": lambda: self._left(5, 5, None),
            "so it is where more are taken out than there are": lambda: self._left(5, 9, None),
            "twenty who take out one of twenty-five leave five": self._in_a_crowd,
            "who puts one in between your commands still has it": self._between,
        }

    def _fill(self, held: int, item: str = "pen") -> None:
        self.client.delete(self.key)
        self.client.hset(self.key, mapping={item: held, "ink": 1})
        self.client.expire(self.key, 60)

    def _left(self, held: int, quantity: int, wanted: str | None, item: str = "pen") -> bool:
        self._fill(held, item)
        self.take_out(self.client, self.key, item, quantity)
        return self._holds(wanted, item)

    def _holds(self, wanted: str | None, item: str = "pen") -> bool:
        seen, other = self.client.hmget(self.key, item, "ink")
        if seen != wanted:
            raise AssertionError(f"the line then is {seen or 'gone'}")
        if other != "1":
            raise AssertionError(f"the other line, a 1, then is {other or 'gone'}")
        if self.client.ttl(self.key) < 0:
            raise AssertionError("the cart then stays for ever")
        return True

    def _in_a_crowd(self) -> bool:
        self._fill(25)
        crowd(lambda: self.take_out(self.client, self.key, "pen", 1), 20, limit=4)
        return self._holds("5")

    def _between(self) -> bool:
        other = redis.Redis(connection_pool=self.client.connection_pool)
        for place in range(1, PLACES + 1):
            self._fill(2)
            come = iter([*[False] * (place - 1), True])
            puts = [0]

            def put_in(come: Iterator[bool] = come, puts: list[int] = puts) -> None:
                if next(come, False):
                    puts[0] = 1
                    other.hincrby(self.key, "pen", 1)

            with after_first(self.client, put_in, place):
                self.take_out(self.client, self.key, "pen", 2)
            if puts[0]:
                self._holds("1")
        return True


@dataclass(frozen=True)
class LogInTrials:
    """The trials of a log-in: a session is a hash at `session:<id>`, its user one of the fields.

    Args:
        client: Of the server.
        log_in: Called with client, the id that the browser brought, and a user; returns the id
            that it gets.
    """

    client: Any
    log_in: Callable[[Any, str, str], str]

    def sentences(self) -> dict[str, Callable[[], bool]]:
        """Return {sentence: callable}, as `exercise.check` takes them."""
        return {
            "who logs in is known by the id that comes back": self._is_known,
            "an id that somebody planted opens nothing any more": self._is_closed,
            "what the guest has looked at moves along": self._moves,
            "the new id cannot be foretold": self._is_drawn,
            "a browser whose old session has expired can log in, too": self._without_a_guest,
            "each session expires": self._expires,
        }

    def _guest(self) -> str:
        key = "session:planted"
        self.client.delete(key)
        self.client.hset(key, "seen", "pen")
        self.client.expire(key, LIVES)
        return "planted"

    def _is_known(self) -> bool:
        self._user(self.log_in(self.client, self._guest(), "ada"))
        self.client.hset(f"session:{self._guest()}", "user", "eve")
        return self._user(self.log_in(self.client, "planted", "ada"))

    def _user(self, id: str) -> bool:
        seen = self.client.hget(f"session:{id}", "user")
        if seen != "ada":
            raise AssertionError(f"its session is of {seen or 'nobody'}")
        return True

    def _is_closed(self) -> bool:
        self.client.delete("session:gone")
        for old, of in ((self._guest(), "it"), ("gone", "one that has expired")):
            self.log_in(self.client, old, "ada")
            if held := self.client.hgetall(f"session:{old}"):
                raise AssertionError(f"{of} opens {held}")
        return True

    def _moves(self) -> bool:
        id = self.log_in(self.client, self._guest(), "ada")
        return self.client.hget(f"session:{id}", "seen") == "pen"

    def _is_drawn(self) -> bool:
        at = time.time()
        ids = [str(self._at_one_moment(at)) for _ in range(2)]
        if ids[0] == ids[1]:
            raise AssertionError("two log-ins get one id, at one time and one state of `random`")
        if min(map(len, ids)) < SHORTEST:
            raise AssertionError(f"such as {ids[1]!r}: one that short can be tried out")
        ends = os.path.commonprefix(ids), os.path.commonprefix([id[::-1] for id in ids])
        if max(map(len, ids)) - sum(map(len, ends)) < SHORTEST - ALIKE:
            raise AssertionError(f"{ids[0]!r}, then {ids[1]!r}: few letters differ")
        return True

    def _at_one_moment(self, at: float) -> str:
        old = self._guest()
        with _one_moment(self.log_in, at):
            return self.log_in(self.client, old, "ada")

    def _without_a_guest(self) -> bool:
        self.client.delete("session:gone")
        return self._user(self.log_in(self.client, "gone", "ada"))

    def _expires(self) -> bool:
        self.client.delete("session:gone")
        for old in (self._guest(), "gone"):
            id = self.log_in(self.client, old, "ada")
            left = self.client.ttl(f"session:{id}")
            if not 0 < left <= LIVES:
                told = {-1: "stays for ever", -2: "is not there"}.get(left, f"has {left} s left")
                raise AssertionError(f"one {told}")
        return True


@dataclass(frozen=True)
class KeyTrials:
    """The trials of a function that names a request, for a cache of responses.

    Args:
        key: Called with method, path, params, tenant and version, all texts but params, a dict of
            texts; returns a text. It is taken to other processes as `in_new_pythons` does.
    """

    key: Callable[..., str]

    def sentences(self) -> dict[str, Callable[[], bool]]:
        """Return {sentence: callable}, as `exercise.check` takes them."""
        return {
            "two processes agree": self._agree,
            "the order of the parameters makes no second key": self._is_sorted,
            "ada and ben do not share one": self._of_one_tenant,
            "nor do methods, paths and versions": lambda: self._differ(
                {}, {"method": "HEAD"}, {"path": "/ink"}, {"path": "/Pens"}, {"version": "2"}
            ),
            "nor do other parameters, or none": lambda: self._differ(
                {}, *({"params": one} for one in ({}, {"b": "1"}, {"a": "12"}, {"a": "21"}))
            ),
            "nor do requests that look alike when their parts are joined": self._are_apart,
        }

    def _of(self, **parts: Any) -> str:
        usual: dict[str, Any] = {"method": "GET", "path": "/pens", "params": {"a": "1"}}
        key = self.key(**usual | {"tenant": "ada", "version": "1"} | parts)
        if not isinstance(key, str):
            raise AssertionError(f"it returns {key!r:.40}, which is no text")
        return key

    def _agree(self) -> bool:
        keys = in_new_pythons(self.key, "GET", "/pens", dict.fromkeys("abcdef", "1"), "ada", "1")
        if keys[0] != keys[1]:
            raise AssertionError(f"{str(keys[0])[:35]} and {str(keys[1])[:35]}")
        return True

    def _is_sorted(self) -> bool:
        return self._of(params={"a": "1", "b": "2"}) == self._of(params={"b": "2", "a": "1"})

    def _of_one_tenant(self) -> bool:
        self._differ({}, {"tenant": "ben"})
        return self._differ({"params": {}}, {"params": {}, "tenant": "ben"})

    def _are_apart(self) -> bool:
        parts = ("method", "path", "tenant", "version")
        for (one, two), by in product(permutations(parts, 2), SEPARATORS):
            self._differ({one: "x", two: f"y{by}z"}, {one: f"x{by}y", two: "z"})
        for by, between in product(SEPARATORS, repeat=2):
            joined = {"a": f"1{between}b{by}2"}
            self._differ({"params": {"a": "1", "b": "2"}}, {"params": joined})
            with_path = f"/pens{between}a{by}1"
            self._differ({"params": {"a": "1"}}, {"path": with_path, "params": {}})
        return True

    def _differ(self, *requests: dict[str, Any]) -> bool:
        seen: dict[str, dict[str, Any]] = {}
        for request in requests:
            key = self._of(**request)
            if key in seen:
                both = " and ".join(_as_words(one) for one in (seen[key], request))
                raise AssertionError(f"{both} get the key {key[:40]}")
            seen[key] = request
        return True


def _as_words(request: dict[str, Any]) -> str:
    return ", ".join(f"{name} {part!r}" for name, part in request.items()) or "the usual one"
