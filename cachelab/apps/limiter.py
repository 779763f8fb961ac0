"""Limits: how often a caller may do something, counted by Redis' clock, in one command a call.

Two kinds. A token bucket is refilled at a steady rate: bursts of its size pass, and on average no
more than the rate lets in. A sliding window lets so many pass in any stretch of its length. It is
exact, for it remembers when each of them came.

The clock of a process takes no part: one that is ahead opens no new window. A call that is refused
adds nothing, so waiting always helps, and a key expires when it says no more than that all is free.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import redis
import redis.asyncio

from cachelab import _check
from cachelab.apps.calls import Calls
from cachelab.cache.flights import to_its_end

MOST_RATE = 10.0**6  # tokens a second: the clock counts microseconds
MOST_TOKENS = 10**9
MOST_TIMES = 10**4  # of a window, which remembers each: some 100 kB a caller
LONGEST = 366 * 86_400.0  # seconds

NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

# ARGV: tokens a microsecond, the size of the bucket, how many are wanted. The key holds the tokens
# that were left, and when; one that is not there is a full bucket. A clock that was set back stands
# until it has caught up. The reply, as the window's: whether it passes, how many are left, then
# microseconds until as many as are wanted are there, and until all are.
BUCKET = (
    NOW
    + """
local rate, size, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local held, since = (redis.call('GET', KEYS[1]) or ''):match('^(%S+) (%d+)$')
local tokens = size
if tonumber(held) then
  now = math.max(now, since)
  tokens = math.min(size, held + rate * (now - since))
end
local function until_there(number)
  return math.max(0, math.ceil((number - 1e-9 - tokens) / rate))  -- 1e-9: what sums are out by
end
local wait = until_there(wanted)
local passes = wait == 0
if passes then tokens = math.max(0, tokens - wanted) end
local full = until_there(size)
if passes then
  local text = string.format('%.17g %.0f', tokens, now)
  redis.call('SET', KEYS[1], text, 'PX', string.format('%.0f', math.ceil(full / 1000) + 1))
end
return {passes and 1 or 0, math.floor(tokens + 1e-9), wait, full}
"""
)

# ARGV: how many may pass, the microseconds in which they may, how many are wanted. The key holds a
# list of when each of them came.
WINDOW = (
    NOW
    + """
local limit, length, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
now = math.max(now, redis.call('LINDEX', KEYS[1], -1) or 0)
local first = redis.call('LINDEX', KEYS[1], 0)
while first and now - first >= length do
  redis.call('LPOP', KEYS[1])
  first = redis.call('LINDEX', KEYS[1], 0)
end
local used = redis.call('LLEN', KEYS[1])
local passes, wait = used + wanted <= limit, 0
if passes then
  for _ = 1, wanted do redis.call('RPUSH', KEYS[1], string.format('%.0f', now)) end
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(length / 1000) + 1))
  used = used + wanted
else
  wait = redis.call('LINDEX', KEYS[1], used + wanted - limit - 1) + length - now
end
return {passes and 1 or 0, limit - used, wait, redis.call('LINDEX', KEYS[1], -1) + length - now}
"""
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call may pass, and what the caller is to know.

    Attributes:
        is_allowed: Whether it may.
        limit: How many may pass at once.
        remaining: How many more might pass now.
        retry_after: Seconds until what was refused may pass, if nothing else does; 0 if it passed.
        reset_after: Seconds until nothing is in use, if nothing else passes.
    """

    is_allowed: bool
    limit: int
    remaining: int
    retry_after: float
    reset_after: float

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer, in whole seconds: the RateLimit fields, Retry-After (RFC 9110).

        >>> Decision(False, 10, 0, 1.2, 60).headers["Retry-After"]
        '2'
        """
        fields = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(math.ceil(self.reset_after)),
        }
        if not self.is_allowed:
            fields["Retry-After"] = str(math.ceil(self.retry_after))
        return fields


class _Rule(NamedTuple):
    script: str
    words: tuple[str, str]
    limit: int


def _bucket(rate: float, burst: int) -> _Rule:
    tokens = _check.number("rate", rate, above=0, high=MOST_RATE)
    size = _check.whole("burst", burst, least=1, most=MOST_TOKENS)
    if size / tokens > LONGEST:
        longest = f"{LONGEST:.0f} seconds"
        raise ValueError(f"rate must fill a burst of {size} within {longest}, not be {rate!r}")
    return _Rule(BUCKET, (repr(tokens / 1e6), str(size)), size)


def _window(limit: int, window: float) -> _Rule:
    most = _check.whole("limit", limit, least=1, most=MOST_TIMES)
    length = _check.number("window", window, low=0.001, high=LONGEST)
    return _Rule(WINDOW, (str(most), str(round(length * 1e6))), most)


class _Core:
    """What all classes do: coroutines, which never suspend over a client that blocks."""

    def __init__(self, calls: Calls, rule: _Rule, prefix: str):
        self._calls = calls
        self._rule = rule
        self._prefix = _check.text("prefix", prefix)

    async def take(self, id: str, cost: int = 1) -> Decision:
        """Let a call pass, or refuse it.

        A client that sends again what was not answered may count a call twice, never too few.

        Args:
            id: Who calls, and what.
            cost: How many calls it counts for.

        Raises:
            RedisUnavailable: There was no answer: whether to let it pass is for the caller to say.
            ValueError: cost is more than may ever pass at once.
        """
        script, words, limit = self._rule
        key = f"{self._prefix}{_check.identity('id', id)}"
        wanted = str(_check.whole("cost", cost, least=1, most=limit))
        passes, left, wait, reset = await self._calls.script(script, [key], *words, wanted)
        return Decision(passes == 1, limit, left, wait / 1e6, reset / 1e6)


class AsyncTokenBucket(_Core):
    """A rate that holds on average, for asyncio.

    Args:
        client: What `connect_async` returns.
        rate: Calls a second that may pass in the long run.
        burst: Calls that may pass at once after a rest: the size of the bucket.
        prefix: What every key starts with; the id follows.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        rate: float,
        burst: int,
        prefix: str = "bucket:",
    ):
        super().__init__(Calls(client, "async"), _bucket(rate, burst), prefix)


class TokenBucket:
    """The twin of `AsyncTokenBucket` that blocks, with the same arguments and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        rate: float,
        burst: int,
        prefix: str = "bucket:",
    ):
        self._core = _Core(Calls(client, "sync"), _bucket(rate, burst), prefix)

    def take(self, id: str, cost: int = 1) -> Decision:
        """See `AsyncTokenBucket.take`."""
        return to_its_end(self._core.take(id, cost))


class AsyncSlidingWindow(_Core):
    """So many calls in any stretch of so many seconds, for asyncio.

    Args:
        client: What `connect_async` returns.
        limit: Calls that may pass within a window, 10,000 at most: what is more wants a bucket.
        window: Its length in seconds.
        prefix: What every key starts with; the id follows.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        limit: int,
        window: float,
        prefix: str = "window:",
    ):
        super().__init__(Calls(client, "async"), _window(limit, window), prefix)


class SlidingWindow:
    """The twin of `AsyncSlidingWindow` that blocks, with the same arguments and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        limit: int,
        window: float,
        prefix: str = "window:",
    ):
        self._core = _Core(Calls(client, "sync"), _window(limit, window), prefix)

    def take(self, id: str, cost: int = 1) -> Decision:
        """See `AsyncSlidingWindow.take`."""
        return to_its_end(self._core.take(id, cost))
