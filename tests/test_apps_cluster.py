"""The applications on a real cluster: what one step needs lies in one slot, the rest repeats."""

import asyncio

import pytest

import cachelab as cl
from cachelab.apps.cart import AsyncCart, Cart
from cachelab.apps.catalogue import AsyncCatalogue, Catalogue
from cachelab.apps.feed import AsyncFeed, Feed
from cachelab.apps.limiter import AsyncSlidingWindow, AsyncTokenBucket, SlidingWindow, TokenBucket
from cachelab.apps.responses import AsyncResponses, Response, Responses
from cachelab.apps.service import AsyncService, Service
from cachelab.apps.sessions import AsyncSessions, Sessions
from cachelab.apps.stock import AsyncStock, Stock
from cachelab.apps.trending import AsyncTrending, Trending

pytestmark = pytest.mark.further
NAMES = [f"user-{n}" for n in range(20)]  # of many slots


@pytest.fixture(scope="module")
def cluster():
    """Three primaries with a replica each."""
    with cl.Cluster() as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    client = cl.connect(cluster.url, timeout=30)
    client.flushall(target_nodes=client.PRIMARIES)
    return client


@pytest.fixture
def run_async(cluster, client):
    """Run an async function of the asyncio client in an event loop of its own."""

    def run(function):
        async def whole():
            aclient = cl.connect_async(cluster.url, timeout=30)
            try:
                return await function(aclient)
            finally:
                await aclient.aclose()

        return asyncio.run(whole())

    return run


def test_sessions_move_and_end_on_a_cluster(client, together):
    sessions = Sessions(client)
    made = {}
    for name in NAMES:
        guest = sessions.begin({"seen": [name]})
        made[name] = sessions.login(name, old=guest.id)
        assert sessions.get(guest.id) is None and sessions.update(made[name].id, {"a": 1})
    assert all(sessions.get(made[name].id).data == {"seen": [name], "a": 1} for name in NAMES)
    together(20, sessions.login, "user-1")
    assert len(sessions.devices("user-1")) == 21 == sessions.logout_everywhere("user-1")
    assert sessions.get(made["user-1"].id) is None and sessions.get(made["user-2"].id)


def test_carts_merge_and_are_sold_on_a_cluster(client, together):
    cart, stock = Cart(client), Stock(client)
    stock.add("p-1", 30)
    for name in NAMES:
        cart.add(f"guest {name}", "p-1", 2)
        assert cart.merge(f"guest {name}", name) == {"p-1": 2}
    names = iter(NAMES)
    orders = together(20, lambda: cart.checkout(*[next(names)] * 2, stock))
    assert [order.is_taken for order in orders].count(True) == 15
    assert stock.left(["p-1"]) == {"p-1": 0}
    assert sum(sum(cart.items(name).values()) for name in NAMES) == 10


def test_feeds_are_built_and_pushed_to_on_a_cluster(client):
    rows = [("p-0", 0)]
    feed = Feed(client, lambda *_: rows, lambda *_: rows, lambda _: NAMES)
    assert {feed.page(name).posts for name in NAMES} == {("p-0",)}
    assert feed.post("ada", "p-1", 1) == 20
    assert {feed.page(name, authors=["ada"]).posts for name in NAMES} == {("p-1", "p-0")}
    feed.forget("user-1")
    assert feed.page("user-1").posts == ("p-0",)


def test_a_catalogue_is_changed_and_dropped_by_tag_on_a_cluster(client, together):
    rows = {name: {"name": name, "price": 1} for name in NAMES}
    loads = []
    catalogue = Catalogue(
        client,
        lambda id: loads.append(id) or dict(rows[id]),
        store=lambda id, changes: rows[id].update(changes),
        tags=lambda product: ["all", product["name"]],
    )
    assert catalogue.get_many(NAMES) == rows == catalogue.get_many(NAMES) and len(loads) == 20
    names = iter(NAMES)
    together(20, lambda: catalogue.update(next(names), {"price": 7}))
    assert catalogue.get_many(NAMES) == rows and len(loads) == 20
    assert catalogue.get("user-1", ["price"]) == {"price": 7}
    assert catalogue.invalidate_tag("all") == 20 and catalogue.get_many(NAMES) == rows
    assert len(loads) == 40 and catalogue.stats.errors == 0


def test_limits_hold_on_a_cluster(client, together):
    for limit in (TokenBucket(client, 1 / 3600, 5), SlidingWindow(client, 5, 3600)):
        names = iter(NAMES * 10)
        passed = together(200, lambda limit=limit, n=names: limit.take(next(n)).is_allowed)
        assert passed.count(True) == 100


def test_trends_are_ranked_on_a_cluster(client, together):
    for name in NAMES:  # rankings in many slots
        trends = Trending(client, name=name, refresh=0)
        trends.hits({"a": 2, name: 1})
        assert trends.top() == [("a", 2), (name, 1)]
    together(20, trends.hit, "new")
    assert trends.top(1) == [("new", 20)]


def test_responses_and_answers_are_kept_on_a_cluster(client, together):
    asked = []

    def fetch(request):
        return asked.append(request) or Response(body=request.tenant)

    responses = Responses(client, fetch)
    service = Service(client, lambda id: asked.append(id) or id, ttl=60, grace=60)
    for _ in range(2):
        assert [responses.get("/", name).body for name in NAMES] == NAMES
        assert [service.get(name) for name in NAMES] == NAMES
    assert len(asked) == 40
    assert responses.get("/", "user-1", if_none_match="*").status == 304


def test_the_other_asyncio_twins_do_the_same_on_a_cluster(run_async):
    async def main(aclient):
        async def fetch(request):
            return Response(body=request.tenant)

        async def call(id):
            return id

        trends = AsyncTrending(aclient, refresh=0)
        responses, service = AsyncResponses(aclient, fetch), AsyncService(aclient, call, 60, 60)
        await asyncio.gather(*(trends.hit("a") for _ in NAMES))
        passed = [
            sum(one.is_allowed for one in await asyncio.gather(*map(limit.take, NAMES * 3)))
            for limit in (AsyncTokenBucket(aclient, 1e-3, 2), AsyncSlidingWindow(aclient, 2, 3600))
        ]
        bodies = [one.body for one in await asyncio.gather(*(responses.get("/", n) for n in NAMES))]
        answers = list(await asyncio.gather(*map(service.get, NAMES)))
        return await trends.top(), passed, bodies, answers

    top, passed, bodies, answers = run_async(main)
    assert top == [("a", 20)] and passed == [40, 40] and bodies == NAMES == answers


def test_the_asyncio_twins_do_the_same_on_a_cluster(run_async):
    async def main(aclient):
        sessions, cart, stock = AsyncSessions(aclient), AsyncCart(aclient), AsyncStock(aclient)

        async def rows(*_):
            return [("p-0", 0)]

        async def names(_):
            return NAMES

        async def load(id):
            return {"id": id}

        feed = AsyncFeed(aclient, rows, rows, names)
        catalogue = AsyncCatalogue(aclient, load, tags=lambda product: [product["id"], "all"])
        made = await asyncio.gather(*(sessions.login("ada") for _ in range(20)))
        await asyncio.gather(*(cart.add("guest", "p-1") for _ in range(20)))
        await stock.add("p-1", 20)
        merged = await cart.merge("guest", "ada")
        order = await cart.checkout("ada", "a", stock)
        pages = await asyncio.gather(*(feed.page(name) for name in NAMES))
        taken = await feed.post("ada", "p-1", 1)
        many = await catalogue.get_many(NAMES)
        dropped = await catalogue.invalidate_tag("all")
        ended = await sessions.logout_everywhere("ada")
        gone = await sessions.get(made[0].id)
        return (
            merged,
            order.is_taken,
            {page.posts for page in pages},
            taken,
            many,
            dropped,
            ended,
            gone,
        )

    merged, is_taken, pages, taken, many, dropped, ended, gone = run_async(main)
    assert merged == {"p-1": 20} and is_taken and pages == {("p-0",)} and taken == 20
    assert many == {name: {"id": name} for name in NAMES} and dropped == 20
    assert ended == 20 and gone is None
