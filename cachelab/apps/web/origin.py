"""The demo's database: products, people and what they write, in tables of its own; it is slow."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cachelab.apps.web import costs

if TYPE_CHECKING:
    from sqlalchemy import Engine, Executable, MetaData, Table
    from sqlalchemy.ext.asyncio import AsyncEngine

Product = dict[str, Any]  # name, price in cents, about
Row = tuple[Any, ...]

SHELF = 12  # products on a page
CONNECTIONS = 20
PATIENCE = 600  # seconds for a connection or a lock: overload is to queue, not to fail

MADE_OF = ("oak", "linen", "copper", "slate")
THINGS = {
    "desk-lamp": ("throws its light where you read", 4900),
    "teapot": ("holds five cups and pours without a drip", 3400),
    "notebook": ("has 192 pages that lie flat", 1450),
    "clock": ("is quiet, and right twice a day at least", 3900),
    "tray": ("carries breakfast for two", 2650),
    "stool": ("reaches the upper shelf", 7800),
    "vase": ("stands safely with long stems in it", 2950),
    "pen-holder": ("keeps what you write with in one place", 1200),
    "bookend": ("holds a metre of books upright", 1950),
    "coat-hook": ("takes a wet winter coat", 1100),
    "picture-frame": ("fits a sheet of A4", 2250),
    "bread-box": ("keeps a loaf for three days", 5600),
}
PEOPLE = ("ada", "alan", "barbara", "donald", "edsger", "frances", "grace", "kathleen")
VISITORS = tuple(f"visitor-{number}" for number in range(1, 21))
FOLLOWED = 3  # by each of them
SAYINGS = (
    "A cache is a promise to forget in time.",
    "Measure first. The slow part is seldom where you look.",
    "The oak desk lamp arrived. It is warmer than the photograph.",
    "Two copies, two truths, until one of them expires.",
    "I make tea while the query runs.",
    "Ninety-nine hits are quick. Everybody remembers the miss.",
    "Whoever deletes the right key sleeps well.",
    "A notebook that lies flat is worth its price.",
)


def products() -> dict[str, Product]:
    """Return all products by id, as the tables are filled with."""
    found = {}
    for thing, (does, price) in THINGS.items():
        for rank, material in enumerate(MADE_OF):
            name = f"{material} {thing.replace('-', ' ')}".capitalize()
            about = f"This {thing.replace('-', ' ')} of {material} {does}."
            cents = price + 250 * rank
            found[f"{material}-{thing}"] = {"name": name, "price": cents, "about": about}
    return found


class Origin:
    """The database as the pages ask it; each answer takes `latency` seconds more.

    Args:
        url: As `UserDatabase.url` gives it.
    """

    def __init__(self, url: str):
        self._url = url
        self.latency = 0.0
        self._loading: Counter[str] = Counter()  # what is being asked for at the moment
        self._readers: dict[object, tuple[set[str], costs.Cost]] = {}

    @cached_property
    def _tables(self) -> "Mapping[str, Table]":
        return tables().tables

    @cached_property
    def _engine(self) -> "AsyncEngine":
        from sqlalchemy.ext.asyncio import create_async_engine

        url = self._url.replace("sqlite:", "sqlite+aiosqlite:", 1)
        limits: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0}
        limits |= {"pool_timeout": PATIENCE, "isolation_level": "AUTOCOMMIT"}
        return create_async_engine(url, **limits, **_settings(url))

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    @contextmanager
    def watched(self, ids: Iterable[str], cost: costs.Cost) -> Iterator[None]:
        """Have a read of a cache count as a miss if a load of an id goes on beside it.

        Who waits for another's load asks for nothing, and would pass for one that hits.
        """
        place, asked = object(), set(ids)
        cost.missed |= not asked.isdisjoint(self._loading)
        self._readers[place] = asked, cost
        try:
            yield
        finally:
            del self._readers[place]

    async def shelf(self, number: str) -> list[Product] | None:
        """Return the products of a page of the shop, with their ids; None if there are none."""
        from sqlalchemy import select

        table = self._tables["cachelab_demo_products"]
        first = SHELF * (int(number) - 1)
        asked = select(table).order_by(table.c.place).offset(first).limit(SHELF)
        rows = await self._ask([number], asked)
        return [{"id": id, "name": name, "price": cents} for _, id, name, cents, _ in rows] or None

    async def product(self, id: str) -> Product | None:
        """Return a product, None if there is none of this id."""
        return (await self.products([id])).get(id)

    async def products(self, ids: Iterable[str]) -> dict[str, Product]:
        """Return some products by id, those that exist."""
        from sqlalchemy import select

        asked = list(ids)
        table = self._tables["cachelab_demo_products"]
        rows = await self._ask(asked, select(table).where(table.c.id.in_(asked)))
        return {
            id: {"name": name, "price": cents, "about": about} for _, id, name, cents, about in rows
        }

    async def home(self, user: str, count: int) -> list[tuple[str, int]]:
        """Return the newest posts of those whom a user follows, and their ranks."""
        from sqlalchemy import select

        posts = self._tables["cachelab_demo_posts"]
        follows = self._tables["cachelab_demo_follows"]
        authors = select(follows.c.author).where(follows.c.follower == user)
        asked = select(posts.c.id).where(posts.c.author.in_(authors))
        return await self._ranked(asked.order_by(posts.c.id.desc()).limit(count))

    async def posts_of(self, author: str, count: int) -> list[tuple[str, int]]:
        """Return the newest posts of an author, and their ranks."""
        from sqlalchemy import select

        posts = self._tables["cachelab_demo_posts"]
        asked = select(posts.c.id).where(posts.c.author == author)
        return await self._ranked(asked.order_by(posts.c.id.desc()).limit(count))

    async def followers(self, author: str) -> list[str]:
        """Return who follows an author."""
        from sqlalchemy import select

        table = self._tables["cachelab_demo_follows"]
        asked = select(table.c.follower).where(table.c.author == author)
        return [follower for (follower,) in await self._ask([], asked)]

    async def texts(self, ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return posts by id, those that exist."""
        from sqlalchemy import select

        asked = list(ids)
        posts = self._tables["cachelab_demo_posts"].c
        wanted = select(posts.id, posts.author, posts.text, posts.at)
        rows = await self._ask(asked, wanted.where(posts.id.in_([int(id) for id in asked])))
        return {
            str(id): {"author": author, "text": text, "at": at} for id, author, text, at in rows
        }

    async def text(self, id: str) -> dict[str, str] | None:
        """Return a post, None if there is none of this id."""
        return (await self.texts([id])).get(id)

    async def write(self, author: str, text: str, request: str) -> int:
        """Commit a post, once by this request, and return its number, by which it is ranked too."""
        from sqlalchemy import insert, select
        from sqlalchemy.exc import IntegrityError

        table = self._tables["cachelab_demo_posts"]
        name = f"{author}:{request}"
        row = {"author": author, "text": text, "at": _days_ago(0), "request": name}
        try:
            ((number,),) = await self._ask([], insert(table).values(row).returning(table.c.id))
        except IntegrityError:  # it is there already
            asked = select(table.c.id).where(table.c.request == name)
            ((number,),) = await self._ask([], asked)
        return int(number)

    async def _ranked(self, asked: "Executable") -> list[tuple[str, int]]:
        return [(str(id), id) for (id,) in await self._ask([], asked)]

    async def _ask(self, names: list[str], statement: "Executable") -> list[Row]:
        with costs.load(), self._under_way(names):
            async with self._engine.connect() as connection:
                rows = [tuple(row) for row in await connection.execute(statement)]
                if self.latency:  # its connection is held, as a busy database's is
                    await asyncio.sleep(self.latency)
        return rows

    @contextmanager
    def _under_way(self, names: list[str]) -> Iterator[None]:
        self._loading.update(names)
        for ids, cost in self._readers.values():
            cost.missed |= not ids.isdisjoint(names)
        try:
            yield
        finally:
            self._loading -= Counter(names)


def tables() -> "MetaData":
    """Return the tables of the demo."""
    from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, Text

    made = MetaData()
    name = String(40)
    Table(
        "cachelab_demo_products",
        made,
        Column("place", Integer, nullable=False),
        Column("id", name, primary_key=True),
        Column("name", Text, nullable=False),
        Column("price", Integer, nullable=False),
        Column("about", Text, nullable=False),
    )
    Table("cachelab_demo_people", made, Column("name", name, primary_key=True))

    def person() -> ForeignKey:
        return ForeignKey("cachelab_demo_people.name")

    Table(
        "cachelab_demo_follows",
        made,
        Column("follower", name, person(), primary_key=True),
        Column("author", name, person(), primary_key=True),
    )
    Table(
        "cachelab_demo_posts",
        made,
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("author", name, person(), index=True, nullable=False),
        Column("text", Text, nullable=False),
        Column("at", Text, nullable=False),
        Column("request", Text, unique=True),  # by which it was written; NULL of what was here
        sqlite_autoincrement=True,
    )
    Table(
        "cachelab_demo_board",
        made,
        Column("name", name, primary_key=True),
        Column("value", Text, nullable=False),
    )
    return made


def fill(url: str) -> None:
    """Make the tables of the demo and fill them, where that has not been done."""
    from sqlalchemy import func, insert, select

    engine, made = opened(url), tables()
    table = made.tables
    try:
        made.create_all(engine)
        with engine.begin() as connection:
            count = select(func.count()).select_from(table["cachelab_demo_people"])
            if connection.execute(count).scalar():
                return
            rows = {
                "people": [{"name": name} for name in PEOPLE + VISITORS],
                "products": [
                    {"place": place, "id": id, **product}
                    for place, (id, product) in enumerate(products().items())
                ],
                "follows": [
                    {"follower": name, "author": PEOPLE[(at + step) % len(PEOPLE)]}
                    for at, name in enumerate(PEOPLE + VISITORS)
                    for step in range(1, FOLLOWED + 1)
                ],
                "posts": [
                    {
                        "author": author,
                        "text": SAYINGS[(day + at) % len(SAYINGS)],
                        "at": _days_ago(day),
                    }
                    for day in range(len(SAYINGS), 0, -1)
                    for at, author in enumerate(PEOPLE)
                ],
            }
            for name, several in rows.items():
                connection.execute(insert(table[f"cachelab_demo_{name}"]), several)
    finally:
        engine.dispose()


def _days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M")


def opened(url: str) -> "Engine":
    """Return an engine for what is not to be slow."""
    from sqlalchemy import create_engine

    return create_engine(url, **_settings(url))


def _settings(url: str) -> dict[str, Any]:
    is_sqlite = url.startswith("sqlite")
    patience = {"timeout": PATIENCE} if is_sqlite else {"connect_timeout": 5}
    return {"connect_args": patience}
