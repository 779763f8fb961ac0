"""The bench of 10 and 10b: limits at a turn, programs that die, new Pythons, trials of answers."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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


def in_new_pythons(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """Call a function in so many new Python processes; return what each call returned.

    Args:
        function: It is taken along with the functions and plain values that it uses.
        *arguments: What JSON can hold, as can what it returns.
        count: How many processes.
    """
    program = source(function) + _PRINTS.format(name=function.__name__)
    command = [sys.executable, "-c", program, json.dumps(arguments)]
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    times = range(_check.whole("count", count, least=1))
    return [json.loads(subprocess.check_output(command, env=usual)) for _ in times]


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
        if seen["at"].diff().max() < around / 4 and at < 1.5 * around:
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
            "two out of five leave three": lambda: self._left(5, 2, "3"),
            "a line of which nothing is left is gone": lambda: self._left(5, 5, None),
            "so it is where more are taken out than there are": lambda: self._left(5, 9, None),
            "twenty who take out one of twenty-five leave five": self._in_a_crowd,
            "who puts one in between your commands still has it": self._between,
        }

    def _fill(self, held: int) -> None:
        self.client.delete(self.key)
        self.client.hset(self.key, mapping={"pen": held, "ink": 1})
        self.client.expire(self.key, 60)

    def _left(self, held: int, quantity: int, wanted: str | None) -> bool:
        self._fill(held)
        self.take_out(self.client, self.key, "pen", quantity)
        return self._holds(wanted)

    def _holds(self, wanted: str | None) -> bool:
        seen = self.client.hget(self.key, "pen")
        if seen != wanted:
            raise AssertionError(f"the line then is {seen or 'gone'}")
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
        return self._user(self.log_in(self.client, self._guest(), "ada"))

    def _user(self, id: str) -> bool:
        seen = self.client.hget(f"session:{id}", "user")
        if seen != "ada":
            raise AssertionError(f"its session is of {seen or 'nobody'}")
        return True

    def _is_closed(self) -> bool:
        self.log_in(self.client, self._guest(), "ada")
        if held := self.client.hgetall("session:planted"):
            raise AssertionError(f"it opens {held}")
        return True

    def _moves(self) -> bool:
        id = self.log_in(self.client, self._guest(), "ada")
        return self.client.hget(f"session:{id}", "seen") == "pen"

    def _is_drawn(self) -> bool:
        before, ids = random.getstate(), []
        try:
            for _ in range(2):
                random.seed(10)
                ids.append(str(self.log_in(self.client, self._guest(), "ada")))
        finally:
            random.setstate(before)
        if ids[0] == ids[1]:
            raise AssertionError("two log-ins get one id, under one state of `random`")
        if min(map(len, ids)) < 20:
            raise AssertionError(f"such as {ids[1]!r}: one that short can be tried out")
        return True

    def _without_a_guest(self) -> bool:
        self.client.delete("session:gone")
        return self._user(self.log_in(self.client, "gone", "ada"))

    def _expires(self) -> bool:
        self.client.delete("session:gone")
        for old in (self._guest(), "gone"):
            id = self.log_in(self.client, old, "ada")
            if not 0 < self.client.ttl(f"session:{id}") <= LIVES:
                raise AssertionError("one stays for ever")
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
            "ada and ben do not share one": lambda: self._differ({}, {"tenant": "ben"}),
            "nor do methods, paths and versions": lambda: self._differ(
                {}, {"method": "HEAD"}, {"path": "/ink"}, {"version": "2"}
            ),
            "nor do requests that look alike when their parts are joined": lambda: self._differ(
                {"params": {"a": "1", "b": "2"}},
                {"params": {"a": "1&b=2"}},
                {"params": {"a": "1,b=2"}},
                {"params": {"a": "1b2"}},
                {"tenant": "adap", "path": "ens"},
            ),
        }

    def _of(self, **parts: Any) -> str:
        usual: dict[str, Any] = {"method": "GET", "path": "/pens", "params": {"a": "1"}}
        return self.key(**usual | {"tenant": "ada", "version": "1"} | parts)

    def _agree(self) -> bool:
        keys = in_new_pythons(self.key, "GET", "/pens", {"a": "1"}, "ada", "1")
        if keys[0] != keys[1]:
            raise AssertionError(f"{str(keys[0])[:35]} and {str(keys[1])[:35]}")
        return True

    def _is_sorted(self) -> bool:
        return self._of(params={"a": "1", "b": "2"}) == self._of(params={"b": "2", "a": "1"})

    def _differ(self, *requests: dict[str, Any]) -> bool:
        seen: dict[str, dict[str, Any]] = {}
        for request in requests:
            key = self._of(**request)
            if key in seen:
                raise AssertionError(f"two have the key {str(key)[:60]}")
            seen[key] = request
        return True
