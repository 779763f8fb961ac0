"""Trends: what is counted most often of late, from a sorted set for each stretch of time.

A hit counts in the bucket of its time, by Redis' clock. The ranking is the sum of all buckets, each
weighed by its age: a hit is worth half as much after half_life, and nothing when its bucket is out
of the window. So what was popular for a year gives way to what is popular today. No bucket is ever
trimmed, hence a newcomer's first hits count; each expires as a whole.

The keys are a ring with one place more than there are buckets, all in one slot: a bucket has
expired when its place comes round again, and every script knows its keys before it runs.
"""

from collections.abc import Mapping
from typing import NamedTuple

import redis
import redis.asyncio

from cachelab import _check
from cachelab.apps.calls import Calls, checked_prefix, slot_of
from cachelab.cache.flights import to_its_end

MOST_BUCKETS = 200
MOST_HITS = 10**6  # of one topic in one call
MOST_TOPICS = 500  # in one call
MOST_RANKS = 1000  # of a ranking
LONGEST = 366 * 86_400.0  # seconds

# KEYS: the ring. ARGV: a bucket's milliseconds, then numbers and topics. A bucket lives until it is
# out of the window, which is one bucket's time before its place is taken.
COUNT = """
local time = redis.call('TIME')
local now, width = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[1])
local bucket = math.floor(now / width)
local key = KEYS[bucket % #KEYS + 1]
for at = 2, #ARGV, 2 do redis.call('ZINCRBY', key, ARGV[at], ARGV[at + 1]) end
local left = (bucket + #KEYS - 1) * width - now
return redis.call('PEXPIRE', key, string.format('%.0f', left))
"""

# KEYS: the ring, then the ranking. ARGV: a bucket's milliseconds, what a hit loses in that time as
# a factor, how many topics, milliseconds that a ranking may be shown, and how long the longest is.
TOP = """
local ranking = table.remove(KEYS)
if ARGV[4] == '0' or redis.call('EXISTS', ranking) == 0 then
  local time = redis.call('TIME')
  local now, width = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[1])
  local bucket = math.floor(now / width)
  local words = {ranking, #KEYS - 1}
  for age = 0, #KEYS - 2 do words[#words + 1] = KEYS[(bucket - age) % #KEYS + 1] end
  words[#words + 1] = 'WEIGHTS'
  for age = 0, #KEYS - 2 do words[#words + 1] = string.format('%.17g', ARGV[2] ^ age) end
  redis.call('ZUNIONSTORE', unpack(words))
  redis.call('ZREMRANGEBYRANK', ranking, 0, -1 - ARGV[5])
  if ARGV[4] ~= '0' then redis.call('PEXPIRE', ranking, ARGV[4]) end
end
local top = redis.call('ZREVRANGE', ranking, 0, ARGV[3] - 1, 'WITHSCORES')
if ARGV[4] == '0' then redis.call('DEL', ranking) end
return top
"""


class Trend(NamedTuple):
    """A topic of the ranking.

    Attributes:
        topic: Its name.
        score: Its hits, each worth less with its age: one of just now is worth 1.
    """

    topic: str
    score: float


class _Core:
    """What both classes do: coroutines, which never suspend over a client that blocks."""

    def __init__(
        self,
        calls: Calls,
        half_life: float,
        window: float,
        buckets: int,
        refresh: float,
        name: str,
        prefix: str,
    ):
        self._calls = calls
        half = _check.number("half_life", half_life, above=0, high=LONGEST)
        length = _check.number("window", window, above=0, high=LONGEST)
        number = _check.whole("buckets", buckets, least=1, most=MOST_BUCKETS)
        seconds = length / number
        if seconds < 0.01:
            raise ValueError(f"window must give each of {number} buckets 0.01 s, not {window!r}")
        self._width = str(round(1000 * seconds))
        self._factor = repr(0.5 ** (seconds / half))
        self._refresh = str(round(1000 * _check.number("refresh", refresh, high=LONGEST)))
        tag = f"{checked_prefix(prefix)}{slot_of(_check.identity('name', name))}:{name}"
        ring = f"{tag}:{self._width}x{number}"  # other settings, another ring
        self._ring = [f"{ring}:{place}" for place in range(number + 1)]
        self._ranking = f"{ring}:top:{self._factor}"

    async def hit(self, topic: str, count: int = 1) -> None:
        """Count a topic.

        A client that sends again what was not answered may count twice: a trend bears that.

        Args:
            topic: What was seen, bought, said.
            count: How many times, 1 to 1,000,000.
        """
        await self.hits({topic: count})

    async def hits(self, counts: Mapping[str, int]) -> None:
        """Count several topics in one command: {topic: how many times}."""
        if not isinstance(counts, Mapping):
            raise TypeError(f"counts must be a mapping of topics to numbers, not {counts!r:.80}")
        if len(counts) > MOST_TOPICS:
            raise ValueError(f"counts must be {MOST_TOPICS} topics at most, not {len(counts)}")
        words = []
        for topic in counts:
            _check.identity("topic", topic)
            number = _check.whole("count", counts[topic], least=1, most=MOST_HITS)
            words += [str(number), topic]
        if words:
            await self._calls.script(COUNT, self._ring, self._width, *words)

    async def top(self, count: int = 10) -> list[Trend]:
        """Return the topics with the highest scores, the highest first, as of `refresh` ago.

        Of equal ones the name that sorts last comes first.
        """
        number = str(_check.whole("count", count, least=1, most=MOST_RANKS))
        words = (self._width, self._factor, number, self._refresh, str(MOST_RANKS))
        reply = await self._calls.script(TOP, [*self._ring, self._ranking], *words)
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return [Trend(topic, float(score)) for topic, score in pairs]


class AsyncTrending(_Core):
    """What is counted most often of late, for asyncio.

    The memory is that of the topics of a window. Redis alone has the counts.

    Args:
        client: What `connect_async` returns.
        half_life: Seconds after which a hit is worth half.
        window: Seconds after which it is worth nothing: several times half_life.
        buckets: Parts of the window, in each of which all hits are of one age.
        refresh: Seconds for which a ranking is shown again before it is made anew; 0 for none.
        name: Which ranking: all keys of one lie in one slot.
        prefix: What every key starts with.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        half_life: float = 3600,
        window: float = 6 * 3600,
        buckets: int = 24,
        refresh: float = 1,
        name: str = "all",
        prefix: str = "trend:",
    ):
        calls = Calls(client, "async")
        super().__init__(calls, half_life, window, buckets, refresh, name, prefix)


class Trending:
    """The twin of `AsyncTrending` that blocks, with the same arguments and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        half_life: float = 3600,
        window: float = 6 * 3600,
        buckets: int = 24,
        refresh: float = 1,
        name: str = "all",
        prefix: str = "trend:",
    ):
        calls = Calls(client, "sync")
        self._core = _Core(calls, half_life, window, buckets, refresh, name, prefix)

    def hit(self, topic: str, count: int = 1) -> None:
        """See `AsyncTrending.hit`."""
        to_its_end(self._core.hit(topic, count))

    def hits(self, counts: Mapping[str, int]) -> None:
        """See `AsyncTrending.hits`."""
        to_its_end(self._core.hits(counts))

    def top(self, count: int = 10) -> list[Trend]:
        """See `AsyncTrending.top`."""
        return to_its_end(self._core.top(count))
