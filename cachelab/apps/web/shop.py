"""The shop behind the pages: the applications of `cachelab.apps`, each with a cache or none.

Without Redis what the database knows can still be had: products, and posts. Who a visitor is, what
is in the carts, what trends and who has used up a limit, Redis alone knows: these calls raise.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from cachelab.apps.calls import FAILURES, Calls
from cachelab.apps.cart import AsyncCart
from cachelab.apps.catalogue import AsyncCatalogue
from cachelab.apps.feed import AsyncFeed, Page
from cachelab.apps.limiter import AsyncSlidingWindow, Decision
from cachelab.apps.sessions import AsyncSessions
from cachelab.apps.trending import AsyncTrending, Trend
from cachelab.apps.web import costs
from cachelab.apps.web.origin import Origin, Product
from cachelab.apps.web.settings import Settings
from cachelab.cache.aside import AsyncCacheAside
from cachelab.clients import connect_async
from cachelab.clients.shards import is_cluster

POSTS = 10  # on a page of a feed
TRENDS = 10
HALF_LIFE, WINDOW, BUCKETS = 60.0, 600.0, 20  # seconds, and parts of the window
LOGINS, LOGIN_WINDOW = 10, 60.0  # of one name from one address, within so many seconds
WRITES, WRITE_WINDOW = 5, 10.0  # posts of one user, within so many seconds
RESENT = 0.5  # seconds after which a post is brought to the timelines again
MOST_RESENT = 1000
GUESTS = re.compile(r"guest\.[\w-]{43}", re.ASCII)


@dataclass(frozen=True)
class Viewer:
    """Who asks, as far as is known.

    Attributes:
        id: What is in the cookie: a session's id, or a guest's.
        user: Who has logged in, None for a guest.
        is_new: Whether the browser has still to be given the id.
        is_unknown: Whether a session was brought, and Redis does not say whose.
    """

    id: str
    user: str | None = None
    is_new: bool = False
    is_unknown: bool = False

    @property
    def token(self) -> str:
        """What a form must bring so that it is known to come from a page of ours.

        It follows from the id in the cookie, which another site can neither read nor set, and is
        checked without Redis. When the id changes, at a log-in, it changes.
        """
        return hmac.new(self.id.encode(), b"form", hashlib.sha256).hexdigest()

    @property
    def cart(self) -> str:
        """What the cart of this viewer is called: a guest's is as hard to guess as the cookie."""
        if self.user is not None:
            return f"user:{self.user}"
        return f"guest:{hashlib.sha256(self.id.encode()).hexdigest()[:32]}"


class Shop:
    """All that the pages show and change.

    Args:
        settings: What the demo is told.

    Attributes:
        is_cached: Whether it reads the caches, or the database at once.
        is_away: Whether Redis did not answer when it was last looked at.
        origin: The database.
    """

    def __init__(self, settings: Settings):
        self._plain: redis.asyncio.Redis = connect_async(
            settings.redis_url, timeout=settings.timeout
        )
        self._counted = client = costs.counted(self._plain)
        self.is_cached = True
        self.is_away = False
        self.origin = origin = Origin(settings.database_url)
        prefix, ttl = settings.prefix, settings.ttl
        self._sessions = AsyncSessions(client, ttl=3600, max_age=86_400, prefix=f"{prefix}session:")
        self._cart = AsyncCart(client, ttl=86_400, prefix=f"{prefix}cart:")
        self._logins = AsyncSlidingWindow(client, LOGINS, LOGIN_WINDOW, f"{prefix}login:")
        self._writes = AsyncSlidingWindow(client, WRITES, WRITE_WINDOW, f"{prefix}write:")
        self._trending = AsyncTrending(
            client, HALF_LIFE, WINDOW, BUCKETS, name="seen", prefix=f"{prefix}trend:"
        )
        self.cached = cached = f"{prefix}cached:"  # what may be dropped at any time
        self._catalogue = AsyncCatalogue(client, origin.product, ttl=ttl, prefix=f"{cached}p:")
        self._shelves: AsyncCacheAside[list[Product]] = AsyncCacheAside(
            client, origin.shelf, ttl, prefix=f"{cached}shelf:"
        )
        self._texts: AsyncCacheAside[dict[str, str]] = AsyncCacheAside(
            client, origin.text, ttl, prefix=f"{cached}post:", load_many=origin.texts
        )
        self._feed = AsyncFeed(
            client,
            origin.home,
            origin.posts_of,
            origin.followers,
            ttl=ttl,
            length=200,
            prefix=f"{cached}feed:",
        )
        self._resends: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close the connections."""
        for task in self._resends:
            task.cancel()
        await self.origin.close()
        if is_cluster(self._plain):
            await asyncio.gather(self._plain.aclose(), self._counted.aclose())
        else:
            await self._plain.connection_pool.disconnect()

    async def is_up(self) -> bool:
        """Return whether Redis answers."""
        with suppress(redis.RedisError, OSError):
            return bool(await self._plain.ping())
        return False

    async def forget(self) -> None:
        """Drop all that is cached: sessions, carts and counts stay."""
        keys = [key async for key in self._plain.scan_iter(f"{self.cached}*", count=1000)]
        await Calls(self._plain, "async").each([(key, ("UNLINK", key)) for key in keys])

    # Who it is

    async def viewer(self, id: str | None) -> Viewer:
        """Return who brings an id; whoever brings none, or one that means nothing, is a guest."""
        if id and GUESTS.fullmatch(id):
            return Viewer(id)
        if id:
            try:
                session = await self._sessions.get(id)
            except FAILURES:
                return Viewer(id, is_unknown=True)
            if session is not None:
                return Viewer(id, session.user)
        return Viewer(f"guest.{secrets.token_urlsafe(32)}", is_new=True)

    async def login(self, user: str, old: Viewer, device: str) -> Viewer:
        """Log a user in, under an id that is new; what a guest had in the cart comes along."""
        session = await self._sessions.login(user, old.id, device=device)
        new = Viewer(session.id, session.user, is_new=True)
        if old.user is None:
            await self._cart.merge(old.cart, new.cart)
        return new

    async def logout(self, viewer: Viewer, everywhere: bool) -> None:
        """End the session of a viewer, or all that the user has."""
        await self._sessions.logout(viewer.id)
        if everywhere and viewer.user is not None:
            await self._sessions.logout_everywhere(viewer.user)

    async def devices(self, user: str) -> list[str]:
        """Return what a user is logged in with."""
        return [device.device for device in await self._sessions.devices(user)]

    async def may_login(self, address: str, name: str) -> Decision:
        """Count a log-in of a name from an address."""
        return await self._logins.take(f"{address}:{name}")

    async def may_write(self, user: str) -> Decision:
        """Count a post of a user."""
        return await self._writes.take(user)

    # What is shown

    async def shelf(self, number: int) -> list[Product]:
        """Return the products of a page of the shop, [] behind the last."""
        found = await self._read([str(number)], self._shelves.get, self.origin.shelf, str(number))
        return found or []

    async def product(self, id: str) -> Product | None:
        """Return a product, and count that it was looked at."""
        found: Product | None
        found = await self._read([id], self._catalogue.get, self.origin.product, id)
        if found is not None:
            with suppress(*FAILURES):
                await self._trending.hit(id)
        return found

    async def products(self, ids: Iterable[str]) -> dict[str, Product]:
        """Return some products by id, those that exist."""
        asked = list(ids)
        if not asked:
            return {}
        found = await self._read(asked, self._catalogue.get_many, self.origin.products, asked)
        return {id: product for id, product in found.items() if product is not None}

    async def trends(self) -> list[tuple[Trend, Product]]:
        """Return what is looked at most of late."""
        top = await self._trending.top(TRENDS)
        found = await self.products([trend.topic for trend in top])
        return [(trend, found[trend.topic]) for trend in top if trend.topic in found]

    async def feed(self, user: str, cursor: str | None) -> tuple[list[dict[str, str]], str | None]:
        """Return a page of what those write whom a user follows, and the next cursor.

        Raises:
            ValueError: The cursor is none that a page gave.
        """
        return await self._posts(self._feed.page, self.origin.home, user, cursor)

    async def wall(
        self, author: str, cursor: str | None
    ) -> tuple[list[dict[str, str]], str | None]:
        """Return a page of what somebody has written, and the next cursor; raises as `feed`."""
        return await self._posts(self._feed.by, self.origin.posts_of, author, cursor)

    # What is changed

    async def write(self, author: str, text: str, request: str) -> None:
        """Commit a post, once however often it is sent, then bring it to the timelines.

        If Redis fails by then, it is brought there as soon as it can be.
        """
        rank = await self.origin.write(author, text, request)
        try:
            await self._feed.post(author, str(rank), rank)
        except FAILURES:
            if len(self._resends) < MOST_RESENT:  # beyond that they show it when they are rebuilt
                task = asyncio.create_task(self._resend(author, rank))
                self._resends.add(task)
                task.add_done_callback(self._resends.discard)

    async def add(self, viewer: Viewer, item: str, quantity: int, request: str) -> int:
        """Put so many of a product into a cart, once however often it is sent."""
        return await self._cart.add(viewer.cart, item, quantity, request)

    async def put(self, viewer: Viewer, item: str, quantity: int) -> None:
        """Have exactly so many of a product in a cart."""
        await self._cart.put(viewer.cart, item, quantity)

    async def cart(self, viewer: Viewer) -> list[tuple[str, int, Product]]:
        """Return what is in a cart: ids, quantities, products."""
        lines = await self._cart.items(viewer.cart)
        found = await self.products(sorted(lines))
        return [(id, lines[id], product) for id, product in found.items()]

    async def _resend(self, author: str, rank: int) -> None:
        while True:
            await asyncio.sleep(RESENT)
            with suppress(*FAILURES):
                await self._feed.post(author, str(rank), rank)
                return

    async def _posts(
        self,
        page: Callable[..., Awaitable[Page]],
        load: Callable[[str, int], Awaitable[list[tuple[str, int]]]],
        of: str,
        cursor: str | None,
    ) -> tuple[list[dict[str, str]], str | None]:
        async def from_database(of: str, limit: int, cursor: str | None) -> Page:
            return _cut(await load(of, 200), limit, cursor)

        found: Page = await self._read([], page, from_database, of, POSTS, cursor)
        if not found.posts:
            return [], None
        ids = list(found.posts)
        texts = await self._read(ids, self._texts.get_many, self.origin.texts, ids)
        return [{"id": id, **texts[id]} for id in ids if texts.get(id)], found.cursor

    async def _read(
        self,
        ids: Iterable[str],
        cached: Callable[..., Awaitable[Any]],
        load: Callable[..., Awaitable[Any]],
        *args: Any,
    ) -> Any:
        """Return what the cache gives, or the database where the cache is left out."""
        cost = costs.here()
        if not self.is_cached:
            cost.is_off = True
            return await load(*args)
        cost.reads = True
        with self.origin.watched(ids, cost):
            return await cached(*args)


def _cut(rows: list[tuple[str, int]], limit: int, cursor: str | None) -> Page:
    """Return a page of what a load brought, as `Feed` makes it of a timeline."""
    rank = 10**16 if cursor is None else int(cursor.partition(":")[0])
    behind = [(post, number) for post, number in rows if number < rank]
    shown = tuple(post for post, _ in behind[:limit])
    last = behind[limit - 1] if len(behind) > limit else None
    return Page(shown, last and f"{last[1]:016d}:{last[0]}")
