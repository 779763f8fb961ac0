"""Feeds: the newest posts of those whom a user follows, page by page, from a cached timeline.

A timeline is a sorted set whose members begin with the rank of their post, so that they are sorted
by it: a page is what comes behind a cursor, the last member of the page before, in one command.
Posts that arrive stand in front of it: no page repeats or skips one. Nothing is kept for a page
size, so no two sizes can be mixed up.

The database has the truth. A post goes to the timelines of its author's followers that are cached,
and only if they are not too many: whoever follows such an author asks for the author's own timeline
too, as the page is read. A timeline that is not there is built of what the database says and of
what arrived while it was being asked, whatever the order.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis
import redis.asyncio

from cachelab import _check
from cachelab.apps.calls import FAILURES, Calls, checked_prefix, slot_of
from cachelab.cache.flights import to_its_end

Ranked = tuple[str, int]  # a post, and its rank

DIGITS = 16  # of a rank in a member
MOST_POSTS = 200  # on a page
MOST_AUTHORS = 100  # whose timelines a page is put together from
MOST_KEPT = 5000  # posts in a timeline
BATCH = 500  # timelines that get a post in one round trip
BUILT_WITHIN = "60000"  # milliseconds that a build is remembered
CURSORS = re.compile(r"\d{16}:.+", re.ASCII | re.DOTALL)

# KEYS: a timeline, and the one that is being built. Its lowest member is "!", in one that is being
# built "!" and the token of its build: that one gets each post that arrives from here on.
BEGIN = """
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local token = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
if not token then
  token = ARGV[1]
  redis.call('ZADD', KEYS[2], 0, token)
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return token
"""

# A build that was forgotten meanwhile has missed posts, though another may have begun: refused.
FINISH = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
if redis.call('ZRANGE', KEYS[2], 0, 0)[1] ~= ARGV[1] then return 0 end
for at = 4, #ARGV do redis.call('ZADD', KEYS[2], 0, ARGV[at]) end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[2], 0, '!')
redis.call('ZREMRANGEBYRANK', KEYS[2], 1, -1 - ARGV[3])
redis.call('RENAME', KEYS[2], KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""

PUSH = """
local taken = 0
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then
    redis.call('ZADD', key, 0, ARGV[1])
    redis.call('ZREMRANGEBYRANK', key, 1, -1 - ARGV[2])
    taken = 1
  end
end
return taken
"""


@dataclass(frozen=True, slots=True)
class Page:
    """Some posts of a feed.

    Attributes:
        posts: Their ids, the newest first.
        cursor: What to ask for the next page with; None if there is none.
    """

    posts: tuple[str, ...]
    cursor: str | None


class _Core:
    """What both classes do: coroutines, which never suspend over a client that blocks."""

    def __init__(
        self,
        calls: Calls,
        load_home: Callable[[str, int], Any],
        load_posts: Callable[[str, int], Any],
        followers: Callable[[str], Any],
        ttl: float,
        length: int,
        max_fanout: int,
        prefix: str,
    ):
        functions = {"load_home": load_home, "load_posts": load_posts, "followers": followers}
        for name, function in functions.items():
            calls.check_function(name, function)
        self._calls = calls
        self._loads = {"home": load_home, "by": load_posts}
        self._followers = followers
        self._ttl = str(_check.milliseconds("ttl", ttl))
        self._length = _check.whole("length", length, least=1, most=MOST_KEPT)
        self._max_fanout = _check.whole("max_fanout", max_fanout, least=0)
        self._prefix = checked_prefix(prefix)

    async def post(self, author: str, post: str, rank: int) -> int | None:
        """Put a post into timelines, when its row has been committed.

        It may be repeated, after it broke off too: a timeline has it once.

        Args:
            author: Who wrote it.
            post: Its id.
            rank: Its place among all posts, such as its row's number or the microsecond of its
                commit: the loads must say the same.

        Returns:
            How many cached timelines of followers have it; None if the author has more than
            max_fanout followers, whose timelines are left as they are.
        """
        member = _member(post, rank)
        own = self._push("by", author, member)
        asked = await self._calls.given(self._followers, author)
        followers = list(islice(_check.several("followers", asked), self._max_fanout + 1))
        if len(followers) > self._max_fanout:
            await self._calls.each([own])
            return None
        pushes = [own, *(self._push("home", user, member) for user in followers)]
        taken: list[int] = []
        for at in range(0, len(pushes), BATCH):
            taken += await self._calls.each(pushes[at : at + BATCH])
        return sum(taken[1:])

    async def page(
        self, user: str, limit: int = 20, cursor: str | None = None, authors: Iterable[str] = ()
    ) -> Page:
        """Return a page of a user's feed.

        Args:
            user: Whose feed.
            limit: How many posts at most, 1 to 200.
            cursor: That of the page before; None for the newest posts.
            authors: Those followed who have more than max_fanout followers, 100 at most.

        Raises:
            ValueError: An argument is out of its range, or the cursor is not one that a page gave.
            Exception: Whatever a load raises.
        """
        names = list(dict.fromkeys(_check.several("authors", authors)))
        if len(names) > MOST_AUTHORS:
            raise ValueError(f"authors must be at most {MOST_AUTHORS}, not {len(names)}")
        return await self._page([("home", user), *(("by", name) for name in names)], limit, cursor)

    async def by(self, author: str, limit: int = 20, cursor: str | None = None) -> Page:
        """Return a page of an author's own posts; see `page`."""
        return await self._page([("by", author)], limit, cursor)

    async def forget(self, user: str) -> None:
        """Have a user's timeline built anew, as when the user follows others from now on."""
        keys = self._keys("home", user)
        await self._calls.each([(keys[0], ("DEL", *keys))])

    async def _page(self, timelines: list[tuple[str, str]], limit: int, cursor: str | None) -> Page:
        limit = _check.whole("limit", limit, least=1, most=MOST_POSTS)
        if cursor is not None and not CURSORS.fullmatch(_check.text("cursor", cursor)):
            raise ValueError(f"cursor must be what a page gave, not {cursor!r:.80}")
        start = "+" if cursor is None else f"({cursor}"
        reads = {}
        for timeline in timelines:
            key = self._keys(*timeline)[0]
            words = ("ZRANGE", key, start, "-", "BYLEX", "REV", "LIMIT", "0", str(limit + 1))
            reads[timeline] = (key, words)
        try:
            came = await self._calls.each(list(reads.values()))
        except FAILURES:
            came = [None] * len(reads)
        found: set[str] = set()
        for (timeline, (_, words)), members in zip(reads.items(), came, strict=True):
            if not members:  # one that is there has its lowest member
                members = await self._loaded(timeline, None if members is None else words)
            found.update(member for member in members if cursor is None or member < cursor)
        found.discard("!")
        newest = sorted(found, reverse=True)[:limit]
        posts = tuple(member[DIGITS + 1 :] for member in newest)
        return Page(posts, newest[-1] if len(found) > limit else None)

    async def _loaded(self, timeline: tuple[str, str], words: tuple[str, ...] | None) -> list[str]:
        """Return the members of a timeline, and build it of these and of what arrives meanwhile.

        words: What reads it, should another have built it by now; None if Redis fails.
        """
        keys, token = self._keys(*timeline), None
        with suppress(*FAILURES):
            if words is not None:
                token = await self._calls.script(BEGIN, keys, f"!{uuid.uuid4().hex}", BUILT_WITHIN)
                if token is None and (members := await self._calls.command(*words)):
                    return list(members)
        kind, id = timeline
        rows = await self._calls.given(self._loads[kind], id, self._length)
        loaded = sorted({_member(post, rank) for post, rank in rows})[-self._length :]
        with suppress(*FAILURES):
            if token is not None:
                await self._calls.script(FINISH, keys, token, self._ttl, str(self._length), *loaded)
        return loaded

    def _push(self, kind: str, id: str, member: str) -> tuple[str, tuple[str, ...]]:
        keys = self._keys(kind, id)
        return keys[0], ("EVAL", PUSH, "2", *keys, member, str(self._length))

    def _keys(self, kind: str, id: str) -> tuple[str, str]:
        """Return the key of a timeline, and that of the one that is being built."""
        place = f"{slot_of(_check.identity('the name of a user', id))}:{id}"
        return f"{self._prefix}{kind}:{place}", f"{self._prefix}{kind}-new:{place}"


class AsyncFeed(_Core):
    """Feeds in Redis, for asyncio: a cache of what the database knows, with its posts' ids alone.

    Without Redis, or where it is full, a page comes from the database. The texts of a page come
    from a cache of posts, by get_many; one that is None has been deleted.

    Args:
        client: What `connect_async` returns.
        load_home: An async function of a user and a count that returns the newest posts of those
            followed, as (post, rank), those of authors with many followers too.
        load_posts: An async function of an author and a count that returns the newest posts.
        followers: An async function of an author that returns the followers, in any order.
        ttl: Seconds that a timeline lives, then it is built anew.
        length: Posts in a timeline, 1 to 5,000: there a feed ends. While posts arrive, the oldest
            leave it.
        max_fanout: Followers at most whose timelines get a post.
        prefix: What every key starts with.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        load_home: Callable[[str, int], Awaitable[Iterable[Ranked]]],
        load_posts: Callable[[str, int], Awaitable[Iterable[Ranked]]],
        followers: Callable[[str], Awaitable[Iterable[str]]],
        ttl: float = 86_400,
        length: int = 1000,
        max_fanout: int = 1000,
        prefix: str = "feed:",
    ):
        calls = Calls(client, "async")
        super().__init__(calls, load_home, load_posts, followers, ttl, length, max_fanout, prefix)


class Feed:
    """The twin of `AsyncFeed` that blocks, with plain functions and a plain client."""

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        load_home: Callable[[str, int], Iterable[Ranked]],
        load_posts: Callable[[str, int], Iterable[Ranked]],
        followers: Callable[[str], Iterable[str]],
        ttl: float = 86_400,
        length: int = 1000,
        max_fanout: int = 1000,
        prefix: str = "feed:",
    ):
        calls = Calls(client, "sync")
        self._core = _Core(calls, load_home, load_posts, followers, ttl, length, max_fanout, prefix)

    def post(self, author: str, post: str, rank: int) -> int | None:
        """See `AsyncFeed.post`."""
        return to_its_end(self._core.post(author, post, rank))

    def page(
        self, user: str, limit: int = 20, cursor: str | None = None, authors: Iterable[str] = ()
    ) -> Page:
        """See `AsyncFeed.page`."""
        return to_its_end(self._core.page(user, limit, cursor, authors))

    def by(self, author: str, limit: int = 20, cursor: str | None = None) -> Page:
        """See `AsyncFeed.by`."""
        return to_its_end(self._core.by(author, limit, cursor))

    def forget(self, user: str) -> None:
        """See `AsyncFeed.forget`."""
        to_its_end(self._core.forget(user))


def _member(post: str, rank: int) -> str:
    number = _check.whole("rank", rank, least=0, most=10**DIGITS - 1)
    return f"{number:0{DIGITS}d}:{_check.identity('post', post)}"
