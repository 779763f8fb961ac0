"""Feeds: pages that neither repeat nor skip, timelines that miss no post, work that is bounded.

The common recipe caches each page of a user's feed by its number.
"""

import json
import threading

import pytest
import redis

import cachelab as cl
from cachelab.apps.feed import AsyncFeed, Feed, Page


class Database:
    """Who follows whom, and the posts, in the order of their commits."""

    def __init__(self, **follows):
        self.follows = follows  # user to authors
        self.posts = []  # (author, post, rank)
        self.loads = 0
        self.is_away = False
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def commit(self, author: str) -> tuple[str, str, int]:
        row = (author, f"post-{len(self.posts)}", len(self.posts))
        self.posts.append(row)
        return row

    def home(self, user, count):
        return self.by(self.follows[user], count)

    def by(self, authors, count):
        self.loads += 1
        if self.is_away:
            raise OSError("the database is away")
        rows = [(post, rank) for author, post, rank in self.posts[::-1] if author in authors]
        self.entered.set()
        self.go_on.wait()
        return rows[:count]

    def followers(self, author):
        return [user for user, authors in self.follows.items() if author in authors]


@pytest.fixture
def database():
    return Database(ada=["bob", "eve"])


@pytest.fixture
def make_feed(server, client, database):
    def load_posts(author, count):
        return database.by([author], count)

    def make(url=server.url, **options):
        client = cl.connect(url, timeout=30)
        return Feed(client, database.home, load_posts, database.followers, **options)

    return make


@pytest.fixture
def feed(make_feed):
    return make_feed()


def walk(feed, user="ada", limit=20, meanwhile=lambda: None, **options) -> list[str]:
    """Return the posts of all pages, one after the other."""
    posts, cursor = [], None
    while True:
        page = feed.page(user, limit, cursor, **options)
        posts += page.posts
        meanwhile()
        if (cursor := page.cursor) is None:
            return posts


def posts(*numbers) -> list[str]:
    return [f"post-{n}" for n in numbers]


def test_pages_follow_each_other_to_the_end(feed, database):
    for _ in range(45):
        feed.post(*database.commit("bob"))
    database.commit("somebody else")
    assert walk(feed) == posts(*range(44, -1, -1))
    assert [len(walk(feed, limit=n)) for n in (1, 15, 45, 200)] == [45] * 4
    assert feed.page("ada", 45).cursor is None and database.loads == 1
    assert feed.by("bob", 2).posts == ("post-44", "post-43")


class Recipe:
    """As tutorials have it: a page is cached under its number, and cut out by it."""

    def __init__(self, client, database):
        self.client, self.database = client, database

    def page(self, user, page=1, limit=20):
        if text := self.client.get(f"feed:{user}:{page}"):
            return json.loads(text)
        rows = self.database.home(user, 10**6)[(page - 1) * limit : page * limit]
        self.client.set(f"feed:{user}:{page}", json.dumps([post for post, _ in rows]), ex=300)
        return [post for post, _ in rows]


def test_two_page_sizes_are_not_mixed_up_and_the_recipe_mixes_them(feed, database, client):
    for _ in range(60):
        database.commit("bob")
    sizes = (20, 50)
    assert [len(feed.page("ada", size).posts) for size in sizes] == [20, 50]
    recipe = Recipe(client, database)
    assert [len(recipe.page("ada", 1, size)) for size in sizes] == [20, 20]


def test_pages_do_not_repeat_posts_when_others_arrive_and_numbered_ones_do(feed, database, client):
    for _ in range(60):
        database.commit("bob")

    def five_arrive():
        for _ in range(5):
            feed.post(*database.commit("eve"))

    assert walk(feed, meanwhile=five_arrive) == posts(*range(59, -1, -1))
    recipe, seen = Recipe(client, database), []
    for page in (1, 2, 3, 4):
        seen += recipe.page("ada", page)
        five_arrive()
    assert len(seen) - len(set(seen)) == 15


def test_readers_beside_writers_miss_nothing_and_see_nothing_twice(feed, database, together):
    for _ in range(100):
        database.commit("bob")
    feed.page("ada")
    turn, began = threading.Lock(), []

    def one():
        with turn:
            began.append(None)
            mine = len(began)
        if mine % 4 == 0:
            return walk(feed, limit=7)
        for _ in range(5):
            with turn:
                row = database.commit("eve")
            feed.post(*row)
        return None

    walks = [posts for posts in together(20, one) if posts]
    assert len(walks) == 5
    for seen in walks:
        assert len(seen) == len(set(seen)) and set(seen) >= set(posts(*range(100)))
    assert walk(feed) == posts(*range(174, -1, -1)) and database.loads == 1


# Building


@pytest.mark.parametrize("when", ["before the database is asked", "after it has answered"])
def test_a_timeline_has_what_arrives_while_it_is_built(feed, database, client, when):
    feed.post(*database.commit("bob"))
    if when.startswith("before"):
        database.commit("bob")
    database.go_on.clear()
    reader = threading.Thread(target=feed.page, args=("ada",), daemon=True)
    reader.start()
    assert database.entered.wait(30)
    row = ("bob", "post-1", 1) if when.startswith("before") else database.commit("bob")
    assert feed.post(*row) == 1  # the one that is being built
    database.go_on.set()
    reader.join()
    assert feed.page("ada").posts == ("post-1", "post-0") and database.loads == 1


def test_a_list_that_is_loaded_and_then_stored_misses_it(database, client):
    """The control: to push to what is cached, and to cache what was loaded."""
    database.commit("bob")
    rows = database.home("ada", 20)
    assert not client.exists("naive:ada")  # so the post that arrives is pushed nowhere
    database.commit("bob")
    client.rpush("naive:ada", *(post for post, _ in rows))
    assert client.lrange("naive:ada", 0, -1) == ["post-0"]


def test_a_build_that_was_forgotten_meanwhile_is_not_kept(feed, database, client):
    database.commit("bob")
    database.go_on.clear()
    reader = threading.Thread(target=feed.page, args=("ada",), daemon=True)
    reader.start()
    assert database.entered.wait(30)
    client.delete(*client.keys("feed:home-new:*"))  # as when it expires
    assert feed.post(*database.commit("bob")) == 0
    first, database.go_on = database.go_on, threading.Event()
    database.entered.clear()
    second = threading.Thread(target=feed.page, args=("ada",), daemon=True)
    second.start()
    assert database.entered.wait(30)
    first.set()
    reader.join()  # what it has read lacks the post that was not pushed
    database.go_on.set()
    second.join()
    assert feed.page("ada").posts == ("post-1", "post-0") and database.loads == 2


def test_whoever_comes_after_a_builder_that_died_builds_it(feed, database):
    database.commit("bob")
    database.is_away = True
    with pytest.raises(OSError, match="the database is away"):
        feed.page("ada")
    assert feed.post(*database.commit("bob")) == 1
    database.is_away = False
    assert feed.page("ada").posts == ("post-1", "post-0")


def test_a_feed_is_built_anew_when_the_user_follows_others(feed, database):
    database.commit("bob"), database.commit("zoe")
    assert feed.page("ada").posts == ("post-0",)
    database.follows["ada"].append("zoe")
    assert feed.page("ada").posts == ("post-0",)
    feed.forget("ada")
    assert feed.page("ada").posts == ("post-1", "post-0")


def test_every_key_expires_and_a_timeline_keeps_so_many_posts(make_feed, database, client):
    feed = make_feed(length=10, ttl=60)
    for _ in range(15):
        database.commit("bob")
    assert walk(feed) == posts(*range(14, 4, -1))
    for _ in range(15):
        feed.post(*database.commit("bob"))
    feed.by("bob")
    assert walk(feed, limit=3) == posts(*range(29, 19, -1))
    assert sorted(client.zcard(key) for key in client.keys()) == [11, 11]
    assert all(0 < client.pttl(key) <= 60_000 for key in client.keys())


# Fan-out


def test_a_post_goes_to_the_timelines_that_are_cached(feed, database, client):
    database.follows |= {f"user-{n}": ["bob"] for n in range(600)}
    for user in ("ada", "user-0", "user-599"):
        feed.page(user)
    client.config_resetstat()
    assert feed.post(*database.commit("bob")) == 3
    stats = client.info("commandstats")
    assert stats["cmdstat_zadd"]["calls"] == 3 and stats["cmdstat_eval"]["calls"] == 602
    assert feed.post("bob", "post-0", 0) == 3 and feed.page("ada").posts == ("post-0",)


def test_of_an_author_with_many_followers_readers_ask_themselves(make_feed, database, client):
    database.follows |= {f"user-{n}": ["bob"] for n in range(10)}
    feed = make_feed(max_fanout=10)
    for author in ["bob", "eve"] * 5:
        database.commit(author)
    assert walk(feed) == posts(*range(9, -1, -1))
    client.config_resetstat()
    assert feed.post(*database.commit("bob")) is None
    assert client.info("commandstats")["cmdstat_eval"]["calls"] == 1
    assert feed.post(*database.commit("eve")) == 1
    assert "post-10" not in walk(feed)
    assert walk(feed, limit=3, authors=["bob"]) == posts(*range(11, -1, -1))


# Failures and bad input


def test_without_redis_a_page_comes_from_the_database(make_feed, database):
    database.commit("bob"), database.commit("eve")
    with cl.Server() as server:
        feed = make_feed(server.url)
        first = feed.page("ada", 1)
        server.kill()
        assert feed.page("ada", 1) == first == Page(("post-1",), "0000000000000001:post-1")
        assert feed.page("ada", 1, first.cursor) == Page(("post-0",), None)
        with pytest.raises(cl.RedisUnavailable, match="may be repeated"):
            feed.post(*database.commit("bob"))


@pytest.mark.parametrize("order", ["CONFIG SET maxmemory 1", "ACL SETUSER default -eval"])
def test_a_redis_that_refuses_costs_a_reader_no_more_than_one_that_is_away(
    make_feed, database, order
):
    database.commit("bob"), database.commit("eve")
    with cl.Server() as server:
        feed, client = make_feed(server.url), cl.connect(server.url)
        client.execute_command(*order.split())
        assert walk(feed) == walk(feed) == posts(1, 0)
        with pytest.raises(redis.ResponseError):  # the control: what no database has is not had
            client.eval("return redis.call('SET', KEYS[1], 1)", 1, "key")


def test_the_asyncio_twin_does_the_same(aclient, run_async, database):
    async def load(user, count):
        return database.home(user, count)

    async def load_posts(author, count):
        return database.by([author], count)

    async def followers(author):
        return iter(database.followers(author))

    async def main():
        feed = AsyncFeed(aclient, load, load_posts, followers)
        first = await feed.page("ada")
        taken = await feed.post(*database.commit("bob"))
        return first, taken, await feed.page("ada"), await feed.by("bob")

    one = Page(("post-0",), None)
    assert run_async(main()) == (Page((), None), 1, one, one)


ODD = ["}", "{x}", "a}b", "a\r\nFLUSHALL", "*", "é", "e\u0301", " ", "!", "~", "0"]


def test_odd_names_are_kept_apart(feed, database):
    database.follows = {name: [name] for name in ODD}
    for rank, name in enumerate(ODD):
        assert feed.page(name).posts == ()
        database.posts.append((name, name, rank))
        assert feed.post(name, name, rank) == 1
    assert [feed.page(name).posts for name in ODD] == [(name,) for name in ODD]


BAD = {
    "user": (lambda f: f.page(""), ValueError),
    "no user": (lambda f: f.page(None), TypeError),
    "limit": (lambda f: f.page("ada", 0), ValueError),
    "large limit": (lambda f: f.page("ada", 201), ValueError),
    "text limit": (lambda f: f.page("ada", "20"), TypeError),
    "cursor": (lambda f: f.page("ada", 20, "2"), ValueError),
    "number cursor": (lambda f: f.page("ada", 20, 2), TypeError),
    "authors": (lambda f: f.page("ada", authors="bob"), TypeError),
    "many authors": (lambda f: f.page("ada", authors=map(str, range(101))), ValueError),
    "author": (lambda f: f.post(b"bob", "p", 1), TypeError),
    "post": (lambda f: f.post("bob", "", 1), ValueError),
    "rank": (lambda f: f.post("bob", "p", -1), ValueError),
    "large rank": (lambda f: f.post("bob", "p", 10**16), ValueError),
    "half rank": (lambda f: f.post("bob", "p", 0.5), TypeError),
}


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_nothing_is_asked_or_written(feed, database, client, call, error):
    with pytest.raises(error):
        call(feed)
    assert client.dbsize() == 0 and database.loads == 0


def test_a_bad_setting_is_refused(make_feed, client, aclient):
    for setting in ({"ttl": 0}, {"length": 5001}, {"max_fanout": -1}, {"prefix": "}"}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            make_feed(**setting)
    with pytest.raises(TypeError, match="load_home must be a function"):
        Feed(client, None, list, list)

    async def load(*_):
        return []

    with pytest.raises(TypeError, match="followers must be a plain function"):
        Feed(client, list, list, load)
    with pytest.raises(TypeError, match="connect_async"):
        AsyncFeed(client, load, load, load)
